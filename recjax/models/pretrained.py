"""A Hugging Face directory -> our BERT parameters, strict both ways."""

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from recjax.errors import UserError
from recjax.models.bert import ACTIVATIONS, BertConfig
from recjax.trees import Flat

MODEL_TYPES = ("bert",)

# HF key (without a leading "bert.") -> our path and the names of its leaves.
_LAYER = r"encoder\.layer\.(\d+)\."
_NORM = {"weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"}
_DENSE = {"weight": "kernel", "bias": "bias"}
KEYS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (r"embeddings\.word_embeddings\.(weight)", "embeddings/word/", {}),
    (r"embeddings\.position_embeddings\.(weight)", "embeddings/position/", {}),
    (r"embeddings\.token_type_embeddings\.(weight)", "embeddings/type/", {}),
    (r"embeddings\.LayerNorm\.(\w+)", "embeddings/norm/", _NORM),
    (_LAYER + r"attention\.self\.query\.(\w+)", "layer_{}/attention/query/", _DENSE),
    (_LAYER + r"attention\.self\.key\.(\w+)", "layer_{}/attention/key/", _DENSE),
    (_LAYER + r"attention\.self\.value\.(\w+)", "layer_{}/attention/value/", _DENSE),
    (
        _LAYER + r"attention\.output\.dense\.(\w+)",
        "layer_{}/attention/output/",
        _DENSE,
    ),
    (
        _LAYER + r"attention\.output\.LayerNorm\.(\w+)",
        "layer_{}/attention_norm/",
        _NORM,
    ),
    (_LAYER + r"intermediate\.dense\.(\w+)", "layer_{}/mlp_up/", _DENSE),
    (_LAYER + r"output\.dense\.(\w+)", "layer_{}/mlp_down/", _DENSE),
    (_LAYER + r"output\.LayerNorm\.(\w+)", "layer_{}/mlp_norm/", _NORM),
    (r"pooler\.dense\.(\w+)", "pool/", _DENSE),
)
# Buffers, and heads of the pretraining task.
IGNORED = r"embeddings\.position_ids|cls\..*"


def load_config(folder: Path) -> BertConfig:
    """Reads `config.json`.

    Raises:
      UserError: missing file or key, another architecture, remote code.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not JSON ({e})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not a JSON object")
    if raw.get("model_type") not in MODEL_TYPES or "auto_map" in raw:
        raise UserError(
            f"{path}: model_type {raw.get('model_type')!r} is not one of "
            f"{', '.join(MODEL_TYPES)} (remote code is never run)"
        )
    known = {f.name for f in fields(BertConfig)}
    try:
        config = BertConfig(**{k: v for k, v in raw.items() if k in known})
    except TypeError as e:
        raise UserError(f"{path}: {str(e).partition(') ')[2]}") from None
    for field in fields(BertConfig):
        value: Any = getattr(config, field.name)
        kind = int if field.default is MISSING else type(field.default)
        if not isinstance(value, int | float if kind is float else kind):
            raise UserError(f"{path}: {field.name} {value!r} is no {kind.__name__}")
        if kind is int and value < 1:
            raise UserError(f"{path}: {field.name} {value} is not at least 1")
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{path}: hidden_size {config.hidden_size} is not divisible by "
            f"num_attention_heads {config.num_attention_heads}"
        )
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only absolute position embeddings are supported")
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{path}: hidden_act {config.hidden_act!r} is not one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return config


def load_params(folder: Path, expected: Flat, *, pooler: bool) -> Flat:
    """Reads `model.safetensors` as float32 arrays under our paths.

    Args:
      folder: directory in HF's layout.
      expected: our `{path: array or ShapeDtypeStruct}` of the encoder.
      pooler: whether `expected` holds the pooler; if not, the file's is left out.

    Raises:
      UserError: one error that lists every missing, extra and misshapen weight.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    params, problems = {}, []
    ignored = IGNORED if pooler else IGNORED + r"|pooler\..*"
    try:
        with safe_open(path, framework="numpy") as file:
            for source in file.keys():  # noqa: SIM118 (not a dict)
                name = source.removeprefix("bert.")
                if re.fullmatch(ignored, name):
                    continue
                ours = _our_path(name)
                if ours not in expected:
                    problems.append(f"extra {source}")
                    continue
                value = file.get_tensor(source)
                value = value.T if ours.endswith("kernel") else value
                if value.shape != expected[ours].shape:
                    problems.append(
                        f"{source} has shape {_said(value, ours)}, "
                        f"not {_said(expected[ours], ours)}"
                    )
                params[ours] = np.ascontiguousarray(value, np.float32)
    except (SafetensorError, OSError, TypeError) as e:
        raise UserError(f"{path}: unreadable ({e})") from None
    problems += [f"missing {ours}" for ours in expected if ours not in params]
    if problems:
        raise UserError(
            f"{path}: does not fit config.json: {'; '.join(sorted(problems))}"
        )
    return params


def _our_path(name: str) -> str:
    for pattern, stem, leaves in KEYS:
        if found := re.fullmatch(pattern, name):
            *layer, leaf = found.groups()
            ours = leaves.get(leaf, "?") if leaves else "embedding"
            return stem.format(*layer) + ours
    return ""


def _said(x: Any, ours: str) -> tuple[int, ...]:
    """Shape as it stands in the file."""
    return tuple(x.shape[::-1] if ours.endswith("kernel") else x.shape)
