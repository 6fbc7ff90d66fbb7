"""An encoder's frozen prefix: its output for every item, computed once.

The freezing schedule alone decides how long the prefix is: the leading blocks
(embeddings, layer 0, 1, ..., pooling) none of whose parameters is trained.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from recjax import trees
from recjax.models.recommender import Recommender

Allocate = Callable[[tuple[int, ...]], np.ndarray]


def count_frozen_blocks(model: Recommender, trainable: Iterable[str]) -> int:
    """Number of leading text-encoder blocks without a trainable parameter.

    0 where there is no text source; layers + 2 where the encoder and its pooling
    are wholly frozen.
    """
    if model.encoder_config is None:
        return 0
    layers = model.encoder_config.num_hidden_layers
    blocks = (block_of(path, layers) for path in trainable)
    return min((b for b in blocks if b is not None), default=layers + 2)


def block_of(path: str, layers: int) -> int | None:
    """Which block of the text encoder a parameter belongs to; None if to none."""
    name = path.removeprefix(trees.TEXT).removeprefix("encoder/")
    head = name.split("/")[0]
    if not path.startswith(trees.TEXT) or head.startswith(("mlp_", "project")):
        return None
    if head == "embeddings":
        return 0
    if head.startswith("layer_"):
        return 1 + int(head.removeprefix("layer_"))
    return layers + 1  # pooling


def compute_prefix(
    encode: Callable[[Any], Any],
    pool: Callable[[Any, Any], Any],
    chunks: Iterable[tuple[np.ndarray, Any]],
    *,
    advance: Callable[[int], Any],
    allocate: Allocate,
    blocks: int,
    layers: int,
    num_tokens: int,
    num_items: int,
) -> np.ndarray:
    """Runs the frozen blocks over the whole catalogue.

    Args:
      encode: packed texts -> states_RxLxE after the frozen blocks.
      pool: states and packed texts -> pooled_UxE.
      chunks: (rows_U, packed) that together hold every catalogue row once.
      advance: receives how many more items are done, after each chunk.
      allocate: makes the array of that shape that the result is written to.
      blocks: how many blocks are frozen, at least 1.
      layers: of the encoder.
      num_tokens: T, tokens in the catalogue.
      num_items: N.

    Returns:
      vectors_NxE where everything is frozen, else states_TxE.
    """
    out: np.ndarray | None = None
    for rows_U, packed in chunks:
        states = encode(packed)
        if blocks == layers + 2:
            values = np.asarray(pool(states, packed))
            where, size = rows_U[rows_U >= 0], num_items
            values = values[rows_U >= 0]
        else:
            filled = np.asarray(packed.segment_RxL) > 0
            values = np.asarray(states)[filled]
            where, size = np.asarray(packed.index_RxL)[filled], num_tokens
        if out is None:
            out = allocate((size, values.shape[-1]))
        out[where] = values
        advance(int((rows_U >= 0).sum()))
    assert out is not None
    return out
