"""Files of the BERT family: Hugging Face's names of settings and weights -> ours."""

import re
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from recjax.common.errors import UserError
from recjax.models.encoders.base import ModelType, Weights
from recjax.models.encoders.bert import BertConfig
from recjax.models.layers.activations import ACTIVATIONS

_NORM = {"weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"}
_DENSE = {"weight": "kernel", "bias": "bias"}
_TABLE = {"weight": "embedding"}

_EMBEDDINGS: Weights = (
    (r"embeddings\.word_embeddings", "embeddings/word", _TABLE),
    (r"embeddings\.position_embeddings", "embeddings/position", _TABLE),
    (r"embeddings\.LayerNorm", "embeddings/norm", _NORM),
)
# Names of the parts of a layer: ours, BERT's and DistilBERT's.
_LAYER = (
    ("attention/query", "attention.self.query", "attention.q_lin"),
    ("attention/key", "attention.self.key", "attention.k_lin"),
    ("attention/value", "attention.self.value", "attention.v_lin"),
    ("attention/output", "attention.output.dense", "attention.out_lin"),
    ("attention_norm", "attention.output.LayerNorm", "sa_layer_norm"),
    ("mlp_up", "intermediate.dense", "ffn.lin1"),
    ("mlp_down", "output.dense", "ffn.lin2"),
    ("mlp_norm", "output.LayerNorm", "output_layer_norm"),
)


def _layers(stack: str, column: int) -> Weights:
    """Weights of the layers in `stack`, with the names of a column of `_LAYER`."""
    return tuple(
        (
            rf"{stack}\.layer\.(\d+)\.{re.escape(names[column])}",
            "layer_{}/" + names[0],
            _NORM if names[0].endswith("norm") else _DENSE,
        )
        for names in _LAYER
    )


_BERT: Weights = (
    *_EMBEDDINGS,
    (r"embeddings\.token_type_embeddings", "embeddings/type", _TABLE),
    *_layers("encoder", 1),
    (r"pooler\.dense", "pool", _DENSE),
)
_DISTILBERT: Weights = (*_EMBEDDINGS, *_layers("transformer", 2))
# DistilBERT's keys in `config.json` where BERT's differ, and the settings it fixes.
_DISTILBERT_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
_DISTILBERT_FIXED = {"type_vocab_size": 0, "has_pooler": False, "layer_norm_eps": 1e-12}
_OURS = ("position_offset", "has_pooler", "lora_rank", "lora_alpha")  # not in the file
MAX_COUNT = 10_000_000  # of tokens, features or layers
MAX_LAYERS = 1000
# Weights after the encoder in checkpoints that were fine-tuned for classification or
# question answering.
TASK_HEAD = r"(pre_)?classifier\..*|qa_outputs\..*"
_BUFFER = r"embeddings\.position_ids"


def read_config(
    path: Path,
    raw: dict[str, Any],
    renamed: dict[str, str],
    fixed: dict[str, Any],
    after_padding: bool = False,
) -> BertConfig:
    """Reads the content of `config.json`.

    Args:
      path: the file, for messages.
      raw: its content.
      renamed: field of `BertConfig` -> key of the file, where they differ.
      fixed: fields that the model type fixes.
      after_padding: whether positions count from `pad_token_id` + 1, not from 0.

    Raises:
      UserError: a missing key, a value out of range or an unsupported architecture.
    """
    names = {field.name: field.name for field in fields(BertConfig)} | renamed
    values = dict(fixed)
    # A key that is absent has the default of Hugging Face's own config class, which the
    # defaults of `BertConfig` repeat.
    for field in fields(BertConfig):
        key = names[field.name]
        if field.name in fixed or field.name in _OURS:
            continue
        if key in raw:
            kind = int if field.default is MISSING else type(field.default)
            values[field.name] = _checked(path, key, raw[key], kind)
        elif field.default is MISSING:
            raise UserError(f"{path}: no {key}")
    # RoBERTa inherits fairseq's numbering: pad_token_id + 1, + 2, ...
    if after_padding:
        padding = _checked(path, "pad_token_id", raw.get("pad_token_id", 1), int, 0)
        values["position_offset"] = padding + 1
    config = BertConfig(**values)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{path}: {names['hidden_size']} {config.hidden_size} is not divisible by "
            f"{names['num_attention_heads']} {config.num_attention_heads}"
        )
    if config.num_hidden_layers > MAX_LAYERS:
        layers = names["num_hidden_layers"]
        raise UserError(f"{path}: {layers} {config.num_hidden_layers} is too large")
    # Refuse settings that our module does not implement.
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only absolute position embeddings are supported")
    if config.hidden_act not in ACTIVATIONS:
        name, known = names["hidden_act"], ", ".join(ACTIVATIONS)
        raise UserError(f"{path}: {name} {config.hidden_act!r} is not one of {known}")
    return config


def _checked(path: Path, key: str, value: Any, kind: type, least: int = 1) -> Any:
    """Returns a value of `config.json` if its type fits and a count is large enough."""
    allowed: Any = int | float if kind is float else kind
    if not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool):
        raise UserError(f"{path}: {key} {value!r} is not of type {kind.__name__}")
    if kind is int and not least <= value <= MAX_COUNT:
        raise UserError(f"{path}: {key} {value} is not from {least} to {MAX_COUNT:,}")
    if kind is float and not 0 <= value < 1:  # rates, and small constants
        raise UserError(f"{path}: {key} {value} is not at least 0 and below 1")
    return value


BERT = ModelType(
    partial(read_config, renamed={}, fixed={}),
    _BERT,
    "bert.",
    rf"{_BUFFER}|cls\..*|{TASK_HEAD}",
)
ROBERTA = ModelType(
    partial(read_config, renamed={}, fixed={}, after_padding=True),
    _BERT,
    "roberta.",
    rf"{_BUFFER}|lm_head\..*|{TASK_HEAD}",
)
DISTILBERT = ModelType(
    partial(read_config, renamed=_DISTILBERT_NAMES, fixed=_DISTILBERT_FIXED),
    _DISTILBERT,
    "distilbert.",
    rf"{_BUFFER}|vocab_(transform|layer_norm|projector)\..*|{TASK_HEAD}",
)
