"""Files of the BERT family: Hugging Face's names of settings and weights -> ours."""

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

# Hugging Face's key -> our path and the names of its leaves.
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
_DISTILBERT_NAMES = {
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
}
_BUFFER = r"embeddings\.position_ids"


def read_config(
    path: Path,
    raw: dict[str, Any],
    *,
    names: dict[str, str],
    after_padding: bool = False,
    **constants: Any,
) -> BertConfig:
    """Reads the content of `config.json`.

    Args:
      path: the file, for messages.
      raw: its content.
      names: field of `BertConfig` -> key of the file.
      after_padding: whether positions count from `pad_token_id` + 1, not from 0.
      **constants: fields that the model type fixes.

    Raises:
      UserError: a missing key, a value out of range or an unsupported architecture.
    """
    # A key that is absent has the default of Hugging Face's own config class, which the
    # defaults of `BertConfig` repeat.
    values = dict(constants)
    for field in fields(BertConfig):
        key = names.get(field.name)
        if key in raw:
            kind = int if field.default is MISSING else type(field.default)
            values[field.name] = _checked(path, key, raw[key], kind)
        elif key and field.default is MISSING:
            raise UserError(f"{path}: no {key}")
    if (
        after_padding
    ):  # RoBERTa inherits fairseq's numbering: pad_token_id + 1, + 2, ...
        padding = _checked(path, "pad_token_id", raw.get("pad_token_id", 1), int, 0)
        values["position_offset"] = padding + 1
    config = BertConfig(**values)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{path}: {names['hidden_size']} {config.hidden_size} is not divisible by "
            f"{names['num_attention_heads']} {config.num_attention_heads}"
        )
    # Refuse what our module would silently compute otherwise.
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only absolute position embeddings are supported")
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{path}: {names['hidden_act']} {config.hidden_act!r} is not one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return config


def _checked(path: Path, key: str, value: Any, kind: type, least: int = 1) -> Any:
    """Returns a value of `config.json` if its type fits and a count is large enough."""
    allowed: Any = int | float if kind is float else kind
    if not isinstance(value, allowed):
        raise UserError(f"{path}: {key} {value!r} is no {kind.__name__}")
    if kind is int and value < least:
        raise UserError(f"{path}: {key} {value} is not at least {least}")
    return value


BERT = ModelType(
    partial(read_config, names=_BERT_NAMES), _BERT, "bert.", rf"{_BUFFER}|cls\..*"
)
ROBERTA = ModelType(
    partial(read_config, names=_BERT_NAMES, after_padding=True),
    _BERT,
    "roberta.",
    rf"{_BUFFER}|lm_head\..*",
)
DISTILBERT = ModelType(
    partial(read_config, names=_DISTILBERT_NAMES, type_vocab_size=0, has_pooler=False),
    _DISTILBERT,
    "distilbert.",
    rf"{_BUFFER}|vocab_(transform|layer_norm|projector)\..*",
)
