"""Starts a run from the parameters of another one, whose catalogue may differ."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from recjax.common.errors import UserError
from recjax.common.files import file_sha256
from recjax.common.param_paths import FlatParams
from recjax.inference.files import load_parts, locate_model, model_version
from recjax.inference.item_encoder import BIAS, ID_VECTORS
from recjax.inference.parts import ADDED, ITEM, STATE, ModelParts
from recjax.models.encoders.directory import TOKENIZER
from recjax.runtime.mesh import place

PER_ITEM = (ID_VECTORS, BIAS)  # parameters with a row for each item
OWN = (
    "late_fusion/",
    "event_bias/",
    "seen_bias/",
)  # parameters that each run tunes itself


def initial_digest(name: str) -> str | None:
    """Returns a digest of the model that `train.init_from` names; None without one."""
    if not name:
        return None
    return model_version(locate_model(name))


def copy_params(
    name: str,
    params: FlatParams,
    item_ids: np.ndarray,
    encoder: Path | None,
    log: Callable[[str], None],
) -> FlatParams:
    """Copies the parameters of a finished run into those of a new one.

    Parameters with a row for each item are copied by item id. A new item keeps its
    drawn id vector, and has the mean bias of the earlier catalogue.

    Args:
      name: a run directory, a model directory, or a name on the Hub.
      params: the drawn parameters, placed on the devices.
      item_ids: ids of the new catalogue, by item index.
      encoder: directory of the text encoder; None without one.
      log: prints the numbers of copied parameters and of new items.

    Raises:
      UserError: the model cannot be read, its shapes are others, or its encoder has
        another tokenizer.
    """
    folder = locate_model(name)
    parts, _ = load_parts(folder)
    if encoder and parts.encoder:
        theirs, ours = (file_sha256(x / TOKENIZER) for x in (parts.encoder, encoder))
        if theirs != ours:
            raise UserError(
                f"train.init_from: {folder}: was trained with another tokenizer than "
                f"that of text.encoder ({encoder}); set text.encoder to the encoder "
                "that it was trained with"
            )
    rows = _rows(parts, item_ids)
    copied, problems = _match(parts.params, params, rows)
    if problems:
        listed = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"train.init_from: {folder}: another model: {listed}{more}; set the towers "
            "and the head as in the config of its run"
        )
    new = int((rows < 0).sum())
    if new == len(rows):
        log(f"warning: {_shown(folder)} knows no item of this data; are the ids alike?")
    gone = len(set(parts.items[ITEM]) - {str(name) for name in item_ids})
    log(
        f"initial parameters of {_shown(folder)}: {len(copied)} of {len(params)} "
        f"arrays; {new:,} of {len(rows):,} items are new, {gone:,} earlier ones are "
        "gone"
    )
    shardings = {path: params[path].sharding for path in copied}
    return {**params, **place(copied, shardings)}


def _match(
    earlier: FlatParams, params: FlatParams, rows: np.ndarray
) -> tuple[FlatParams, list[str]]:
    """Returns the values of parameters that are copied, and what does not fit.

    Args:
      earlier: the parameters of the other run.
      params: the drawn parameters.
      rows: the earlier row of each item; -1 without one.
    """
    copied, problems = {}, []
    for path, own in params.items():
        found = earlier.get(path)
        if path.startswith(OWN):
            continue
        if found is None:
            problems.append(f"{path} is missing")
        elif path in PER_ITEM:
            if found.shape[1:] != own.shape[1:]:
                problems.append(f"{path} has rows of shape {found.shape[1:]}")
                continue
            value = np.array(own)
            if path == BIAS:
                value[:] = found.mean()
            known = rows >= 0
            value[known] = found[rows[known]]
            copied[path] = value
        elif found.shape != own.shape:
            problems.append(f"{path} has shape {found.shape}, not {own.shape}")
        else:
            copied[path] = found
    extra = [x for x in earlier if x not in params and not x.startswith(OWN)]
    return copied, [*problems, *(f"{path} is not in this model" for path in extra)]


def _rows(parts: ModelParts, item_ids: np.ndarray) -> np.ndarray:
    """Returns the earlier row of each item; -1 for an item without trained rows."""
    trained = parts.items[STATE] != ADDED
    row_of = {
        name: row
        for row, (name, known) in enumerate(
            zip(parts.items[ITEM], trained, strict=True)
        )
        if known
    }
    return np.array([row_of.get(str(name), -1) for name in item_ids], np.int64)


def _shown(folder: Path) -> Path:
    return folder.parent if folder.name == "model" else folder
