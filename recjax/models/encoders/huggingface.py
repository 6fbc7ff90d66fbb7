"""A Hugging Face directory -> our encoder's parameters, strict both ways."""

import json
import re
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams
from recjax.models.encoders.bert import ACTIVATIONS, BertConfig

WEIGHTS = "model.safetensors"
Weights = tuple[tuple[str, str, dict[str, str]], ...]
_NORM = {"weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"}
_DENSE = {"weight": "kernel", "bias": "bias"}

# HF key -> our path and the names of its leaves.
_EMBEDDINGS: Weights = (
    (r"embeddings\.word_embeddings\.(weight)", "embeddings/word/", {}),
    (r"embeddings\.position_embeddings\.(weight)", "embeddings/position/", {}),
    (r"embeddings\.LayerNorm\.(\w+)", "embeddings/norm/", _NORM),
)
_BERT_LAYER = r"encoder\.layer\.(\d+)\."
_BERT: Weights = (
    *_EMBEDDINGS,
    (r"embeddings\.token_type_embeddings\.(weight)", "embeddings/type/", {}),
    *(
        (_BERT_LAYER + key + r"\.(\w+)", "layer_{}/" + ours, leaves)
        for key, ours, leaves in (
            (r"attention\.self\.query", "attention/query/", _DENSE),
            (r"attention\.self\.key", "attention/key/", _DENSE),
            (r"attention\.self\.value", "attention/value/", _DENSE),
            (r"attention\.output\.dense", "attention/output/", _DENSE),
            (r"attention\.output\.LayerNorm", "attention_norm/", _NORM),
            (r"intermediate\.dense", "mlp_up/", _DENSE),
            (r"output\.dense", "mlp_down/", _DENSE),
            (r"output\.LayerNorm", "mlp_norm/", _NORM),
        )
    ),
    (r"pooler\.dense\.(\w+)", "pool/", _DENSE),
)
_DISTILBERT_LAYER = r"transformer\.layer\.(\d+)\."
_DISTILBERT: Weights = (
    *_EMBEDDINGS,
    *(
        (_DISTILBERT_LAYER + key + r"\.(\w+)", "layer_{}/" + ours, leaves)
        for key, ours, leaves in (
            (r"attention\.q_lin", "attention/query/", _DENSE),
            (r"attention\.k_lin", "attention/key/", _DENSE),
            (r"attention\.v_lin", "attention/value/", _DENSE),
            (r"attention\.out_lin", "attention/output/", _DENSE),
            (r"sa_layer_norm", "attention_norm/", _NORM),
            (r"ffn\.lin1", "mlp_up/", _DENSE),
            (r"ffn\.lin2", "mlp_down/", _DENSE),
            (r"output_layer_norm", "mlp_norm/", _NORM),
        )
    ),
)
_BERT_NAMES = {
    name: name
    for name in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "max_position_embeddings",
        "type_vocab_size",
        "initializer_range",
        "layer_norm_eps",
    )
}


@dataclass(frozen=True)
class ModelType:
    """How the files of a model type name what `bert.Bert` is made of.

    Attributes:
      weights: regex over HF's key, without the prefix -> our path and its leaves.
      prefix: of the keys where the file holds the task that it was pretrained on.
      ignored: regex over keys of buffers, and of heads of that task.
      names: field of `BertConfig` -> key of `config.json`.
      constants: fields that `config.json` does not say.
      after_padding: whether positions count from `pad_token_id` + 1, not from 0.
    """

    weights: Weights
    prefix: str
    ignored: str
    names: dict[str, str] = field(default_factory=lambda: _BERT_NAMES)
    constants: dict[str, Any] = field(default_factory=dict)
    after_padding: bool = False


_BUFFER = r"embeddings\.position_ids"
MODEL_TYPES = {
    "bert": ModelType(_BERT, "bert.", rf"{_BUFFER}|cls\..*"),
    "roberta": ModelType(
        _BERT, "roberta.", rf"{_BUFFER}|lm_head\..*", after_padding=True
    ),
    "distilbert": ModelType(
        _DISTILBERT,
        "distilbert.",
        rf"{_BUFFER}|vocab_(transform|layer_norm|projector)\..*",
        {
            "vocab_size": "vocab_size",
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "max_position_embeddings": "max_position_embeddings",
            "initializer_range": "initializer_range",
        },
        {"type_vocab_size": 0, "has_pooler": False},
    ),
}


def load_config(folder: Path) -> BertConfig:
    """Reads `config.json`.

    Raises:
      UserError: missing file or key, another architecture, remote code.
    """
    path = folder / "config.json"
    raw, model_type = _read(path)
    names, values = model_type.names, dict(model_type.constants)
    for each in fields(BertConfig):
        key = names.get(each.name)
        if key in raw:
            kind = int if each.default is MISSING else type(each.default)
            values[each.name] = _checked(path, key, raw[key], kind)
        elif key and each.default is MISSING:
            raise UserError(f"{path}: no {key}")
    if model_type.after_padding:
        padding = _checked(path, "pad_token_id", raw.get("pad_token_id", 1), int, 0)
        values["position_offset"] = padding + 1
    config = BertConfig(**values)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{path}: {names['hidden_size']} {config.hidden_size} is not divisible by "
            f"{names['num_attention_heads']} {config.num_attention_heads}"
        )
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only absolute position embeddings are supported")
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{path}: {names['hidden_act']} {config.hidden_act!r} is not one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return config


def _read(path: Path) -> tuple[dict[str, Any], ModelType]:
    """`config.json` as it stands, and the model type that it names."""
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


def _checked(path: Path, key: str, value: Any, kind: type, least: int = 1) -> Any:
    """A value of `config.json`, if it is of that kind, and a count large enough."""
    allowed: Any = int | float if kind is float else kind
    if not isinstance(value, allowed):
        raise UserError(f"{path}: {key} {value!r} is no {kind.__name__}")
    if kind is int and value < least:
        raise UserError(f"{path}: {key} {value} is not at least {least}")
    return value


def load_params(folder: Path, expected: FlatParams, *, pooler: bool) -> FlatParams:
    """Reads `model.safetensors` as float32 arrays under our paths.

    Args:
      folder: directory in HF's layout; its `config.json` names the model type.
      expected: our `{path: array or ShapeDtypeStruct}` of the encoder.
      pooler: whether `expected` holds the pooler; if not, the file's is left out.

    Raises:
      UserError: one error that lists every missing, extra and misshapen weight.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    params, problems = {}, []
    _, model_type = _read(folder / "config.json")
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
                value = value.T if ours.endswith("kernel") else value
                if value.shape != expected[ours].shape:
                    problems.append(
                        f"{source} has shape {_said(value, ours)}, "
                        f"not {_said(expected[ours], ours)}"
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
    for pattern, stem, leaves in weights:
        if found := re.fullmatch(pattern, name):
            *layer, leaf = found.groups()
            ours = leaves.get(leaf, "?") if leaves else "embedding"
            return stem.format(*layer) + ours
    return ""


def _said(x: Any, ours: str) -> tuple[int, ...]:
    """Shape as it stands in the file."""
    return tuple(x.shape[::-1] if ours.endswith("kernel") else x.shape)
