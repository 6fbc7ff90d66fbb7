"""Loads a Hugging Face directory: the config and weights of a pretrained encoder.

A new encoder is one file with its config and module, its `ModelType`, and an entry in
`MODEL_TYPES`.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams
from recjax.models.encoders.base import EncoderConfig, ModelType, Weights
from recjax.models.encoders.bert_files import BERT, DISTILBERT, ROBERTA

WEIGHTS = "model.safetensors"
# By `model_type` of `config.json`.
MODEL_TYPES: dict[str, ModelType] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
}


def load_config(folder: Path) -> EncoderConfig:
    """Reads `config.json`.

    Raises:
      UserError: missing file or key, unsupported architecture, remote code.
    """
    path = folder / "config.json"
    raw, model_type = _read(path)
    return model_type.read_config(path, raw)


def _read(path: Path) -> tuple[dict[str, Any], ModelType]:
    """Reads the content of `config.json` and looks up its model type."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not JSON ({e})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not a JSON object")
    name = raw.get("model_type")
    if not isinstance(name, str) or name not in MODEL_TYPES or "auto_map" in raw:
        raise UserError(
            f"{path}: model_type {name!r} is not one of "
            f"{', '.join(MODEL_TYPES)} (remote code is never run)"
        )
    return raw, MODEL_TYPES[name]


def load_params(folder: Path, expected: FlatParams) -> FlatParams:
    """Reads `model.safetensors` as float32 arrays under our paths.

    Args:
      folder: directory in Hugging Face's layout, with `config.json`.
      expected: `{our path: array or ShapeDtypeStruct}` of the encoder. The file may
        hold a pooler that is not expected; any other extra weight is an error.

    Raises:
      UserError: one error that lists every missing, extra and misshapen weight, so
        that a file has to be repaired once and not weight by weight.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    params, problems = {}, []
    _, model_type = _read(folder / "config.json")
    # A checkpoint's pooler is read only if the model pools with it; every other weight
    # has to be used, because an unused one means another architecture.
    pooler = any(ours.startswith("pool/") for ours in expected)
    ignored = model_type.ignored + ("" if pooler else r"|pooler\..*")
    try:
        with safe_open(path, framework="numpy") as file:
            for source in file.keys():  # noqa: SIM118 (not a dict)
                name = source.removeprefix(model_type.prefix)
                if re.fullmatch(ignored, name):
                    continue
                ours = _our_path(model_type.weights, name)
                if ours not in expected:
                    problems.append(f"extra {source}")
                    continue
                value = file.get_tensor(source)
                # PyTorch stores a dense layer's matrix as outputs x inputs.
                value = value.T if ours.endswith("kernel") else value
                if value.shape != expected[ours].shape:
                    problems.append(
                        f"{source} has shape {_file_shape(value, ours)}, "
                        f"not {_file_shape(expected[ours], ours)}"
                    )
                params[ours] = np.ascontiguousarray(value, np.float32)
                if not np.isfinite(params[ours]).all():
                    problems.append(f"{source} is not finite")
    except (SafetensorError, OSError, TypeError) as e:
        raise UserError(f"{path}: unreadable ({e})") from None
    problems += [f"missing {ours}" for ours in expected if ours not in params]
    if problems:
        raise UserError(
            f"{path}: does not fit config.json: {'; '.join(sorted(problems))}"
        )
    return params


def _our_path(weights: Weights, name: str) -> str:
    """Our path of a weight; empty if no pattern matches."""
    for pattern, prefix, leaves in weights:
        if found := re.fullmatch(pattern, name):
            *layer, leaf = found.groups()
            ours = leaves.get(leaf, "?") if leaves else "embedding"
            return prefix.format(*layer) + ours
    return ""


def _file_shape(x: Any, ours: str) -> tuple[int, ...]:
    """Shape of the weight in the file's orientation."""
    return tuple(x.shape[::-1] if ours.endswith("kernel") else x.shape)
