"""Loads a Hugging Face directory: the config and weights of a pretrained encoder.

A new encoder is one file with its config and module, its `ModelType`, and an entry in
`MODEL_TYPES`.
"""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from recjax.common.errors import UserError
from recjax.common.files import read_json
from recjax.common.param_paths import FlatParams
from recjax.models.encoders.base import EncoderConfig, ModelType, Weights
from recjax.models.encoders.bert_files import BERT, DISTILBERT, ROBERTA, TASK_HEAD
from recjax.models.encoders.directory import CONFIG, find_file, weight_files

MAX_PROBLEMS = 50  # that an error lists
# By `model_type` of `config.json`.
MODEL_TYPES = {"bert": BERT, "roberta": ROBERTA, "distilbert": DISTILBERT}


def load_config(folder: Path) -> EncoderConfig:
    """Reads `config.json`.

    Raises:
      UserError: missing file or key, unsupported architecture, remote code.
    """
    raw, model_type = _read(folder)
    return model_type.read_config(folder / CONFIG, raw)


def _read(folder: Path) -> tuple[dict[str, Any], ModelType]:
    """Reads the content of `config.json` and looks up its model type."""
    path = find_file(folder, CONFIG)
    raw = read_json(path)
    name = raw.get("model_type")
    if "auto_map" in raw:
        raise UserError(
            f"{path}: auto_map asks for code that comes with the model, which is never "
            "run; use a checkpoint whose config.json has no auto_map"
        )
    if not isinstance(name, str) or name not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise UserError(f"{path}: model_type {name!r} is not one of {known}")
    return raw, MODEL_TYPES[name]


def load_params(folder: Path, expected: FlatParams) -> FlatParams:
    """Reads the weights as float32 arrays under our paths.

    `expected` holds an array or `ShapeDtypeStruct` for each path of the encoder.

    Raises:
      UserError: lists the missing, extra and misshapen weights, so that a file has to
        be repaired once and not weight by weight.
    """
    params, problems = FlatParams(), list[str]()
    _, model_type = _read(folder)
    # A checkpoint's pooler is read only if the model pools with it; every other weight
    # has to be used, because an unused one means another architecture.
    pooler = any(ours.startswith("pool/") for ours in expected)
    ignored = model_type.ignored + ("" if pooler else r"|pooler\..*")
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as file:
                for source in file.keys():  # noqa: SIM118 (not a dict)
                    name = source.removeprefix(model_type.prefix)
                    if re.fullmatch(ignored, name):
                        continue
                    ours = _our_path(model_type.weights, name)
                    if ours not in expected:
                        problems.append(f"extra {source}")
                    elif ours in params:
                        problems.append(f"{source} is a second value of {ours}")
                    else:
                        value = file.get_tensor(source)
                        params[ours], found = _convert(
                            ours, value, expected[ours].shape
                        )
                        problems += [f"{source} {problem}" for problem in found]
        except (SafetensorError, OSError, TypeError) as e:
            raise UserError(f"{path}: unreadable ({e})") from None
    problems += [f"missing {ours}" for ours in expected if ours not in params]
    if problems:
        listed = "; ".join(sorted(problems)[:MAX_PROBLEMS])
        more = len(problems) - MAX_PROBLEMS
        others = f"; and {more:,} more" if more > 0 else ""
        raise UserError(f"{path}: does not fit config.json: {listed}{others}")
    return params


def unused_weights(folder: Path) -> list[str]:
    """Returns a note if there are weights of a task that the encoder was tuned for.

    Raises:
      UserError: a file of weights is missing or unreadable.
    """
    heads = set[str]()
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as file:
                found = [name for name in file.keys() if re.fullmatch(TASK_HEAD, name)]  # noqa: SIM118
        except (SafetensorError, OSError) as e:
            raise UserError(f"{path}: unreadable ({e})") from None
        heads |= {name.partition(".")[0] for name in found}
    if not heads:
        return []
    return [f"{folder}: the weights of {', '.join(sorted(heads))} are not used"]


def _convert(
    ours: str, value: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, list[str]]:
    """Returns a weight as our parameter, and its problems."""
    problems = []
    if not jnp.issubdtype(value.dtype, jnp.floating):  # bfloat16 too
        problems.append(f"has {value.dtype} values, not floats")
    # PyTorch stores a dense layer's matrix as outputs x inputs.
    is_kernel = ours.endswith("kernel")
    wanted = shape[::-1] if is_kernel else shape
    if value.shape != wanted:
        problems.append(f"has shape {value.shape}, not {wanted}")
    converted = np.ascontiguousarray(value.T if is_kernel else value, np.float32)
    if not np.isfinite(converted).all():
        problems.append("is not finite")
    return converted, problems


def _our_path(weights: Weights, name: str) -> str:
    """Our path of a weight; empty if no pattern matches."""
    stem, _, leaf = name.rpartition(".")
    for pattern, module, leaves in weights:
        if found := re.fullmatch(pattern, stem):
            return f"{module.format(*found.groups())}/{leaves.get(leaf, '?')}"
    return ""
