"""An encoder's frozen prefix: its output for every item, computed once.

The freezing schedule alone decides how long the prefix is: the leading blocks
(embeddings, layer 0, 1, ..., pooling) none of whose parameters is trained.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from recjax import trees
from recjax.models.recommender import Recommender


def count_frozen_blocks(model: Recommender, trainable: Iterable[str]) -> int:
    """Number of leading text-encoder blocks without a trainable parameter.

    0 where there is no text source; layers + 2 where the encoder and its pooling
    are wholly frozen.
    """
    if model.encoder_config is None:
        return 0
    layers = model.encoder_config.num_hidden_layers
    first = layers + 2
    for path in trainable:
        name = path.removeprefix(trees.TEXT).removeprefix("encoder/")
        if not path.startswith(trees.TEXT) or name.startswith("project/"):
            continue
        head = name.split("/")[0]
        if head == "embeddings":
            block = 0
        elif head.startswith("layer_"):
            block = 1 + int(head.removeprefix("layer_"))
        else:  # pooling
            block = layers + 1
        first = min(first, block)
    return first


def compute_prefix(
    encode: Callable[[Any], Any],
    pool: Callable[[Any, Any], Any],
    chunks: Iterable[tuple[np.ndarray, Any]],
    *,
    advance: Callable[[int], Any],
    blocks: int,
    layers: int,
    num_tokens: int,
    num_items: int,
) -> dict[str, np.ndarray]:
    """Runs the frozen blocks over the whole catalogue.

    Args:
      encode: packed texts -> states_RxLxE after the frozen blocks.
      pool: states and packed texts -> pooled_UxE.
      chunks: (rows_U, packed) that together hold every catalogue row once.
      advance: receives how many more items are done, after each chunk.
      blocks: how many blocks are frozen, at least 1.
      layers: of the encoder.
      num_tokens: T, tokens in the catalogue.
      num_items: N.

    Returns:
      `vectors_NxE` where everything is frozen, else `states_TxE`.
    """
    whole = blocks == layers + 2
    out: np.ndarray | None = None
    for rows_U, packed in chunks:
        states = encode(packed)
        if whole:
            values = np.asarray(pool(states, packed))
            where, size = rows_U[rows_U >= 0], num_items
            values = values[rows_U >= 0]
        else:
            filled = np.asarray(packed.segment_RxL) > 0
            values = np.asarray(states)[filled]
            where, size = np.asarray(packed.index_RxL)[filled], num_tokens
        if out is None:
            out = np.zeros((size, values.shape[-1]), values.dtype)
        out[where] = values
        advance(int((rows_U >= 0).sum()))
    assert out is not None
    return {"vectors_NxE" if whole else "states_TxE": out}
