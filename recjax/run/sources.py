"""Compares data, encoder and initial parameters with those of a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recjax.common.config import PLACES, flat_config, flatten
from recjax.common.errors import UserError
from recjax.common.files import read_json
from recjax.data.ingest.files import GZIP_SUFFIX, table_digest
from recjax.data.ingest.sources import locate_data, locate_encoder
from recjax.models.encoders.directory import (
    settings_digest,
    transformer_folder,
    weights_digest,
)
from recjax.run.init_from import initial_digest


def check_sources(config: Any, folder: Path, done: Mapping[str, Any]) -> list[str]:
    """Returns what changed, since a finished run, at the places that it read from.

    Missing files do not count. Another place than that of the run must have the same
    bytes: data, encoder and run may move.

    Args:
      config: the config, which may name other places than the run's.
      folder: the run directory.
      done: the content of its `results.json`.

    Raises:
      UserError: another place has other data, another encoder or another model.
    """
    saved = flatten(read_json(folder / "config.json"))
    now = flat_config(config)
    changed = []
    for key in PLACES:
        compare, moved = COMPARISONS.get(key), saved.get(key) != now[key]
        # The files of known names and of the Hub do not change.
        if compare is None or not (moved or _is_directory(now[key])):
            continue
        try:
            found = compare(config, done)
        except (UserError, OSError):
            if moved:
                raise
            continue  # gone after the run
        if found and moved:
            raise UserError(
                f"{key}: {now[key]!r} differs from what {folder} was trained with "
                f"({', '.join(found)}); choose another --workdir"
            )
        changed += found
    return changed


def _is_directory(name: str) -> bool:
    return bool(name) and Path(name).expanduser().is_dir()


def _changed_data(config: Any, done: Mapping[str, Any]) -> list[str]:
    """Names the data files that differ; those of known data sets never do."""
    folder = locate_data(config.data.source)
    changed = []
    for name, digest in done["protocol"]["files"].items():
        other = name.removesuffix(GZIP_SUFFIX)
        other = name + GZIP_SUFFIX if other == name else other
        paths = [folder / x for x in (name, other) if (folder / x).exists()]
        if not paths:
            raise UserError(f"{folder / name}: no such file")
        if table_digest(paths[0]) != digest:
            changed.append(name)
    return changed


def _changed_encoder(config: Any, done: Mapping[str, Any]) -> list[str]:
    """Names the parts of the encoder that differ."""
    if "text" not in config.item_tower.sources:
        return []
    folder = transformer_folder(locate_encoder(config.text.encoder))
    changed = []
    if done["pretrained"] and weights_digest(folder) != done["pretrained"]:
        changed.append(f"the weights in {folder}")
    settings = done.get("encoder_settings")  # older results lack it
    if settings and settings_digest(folder) != settings:
        changed.append(f"the config or the tokenizer in {folder}")
    return changed


def _changed_initial(config: Any, done: Mapping[str, Any]) -> list[str]:
    """Names the model of the initial parameters if it differs."""
    now = initial_digest(config.train.init_from)
    # Older results lack it.
    return [] if done.get("initial", now) == now else ["the initial parameters"]


COMPARISONS = {
    "data.source": _changed_data,
    "text.encoder": _changed_encoder,
    "train.init_from": _changed_initial,
}
