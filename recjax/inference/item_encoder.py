"""Encodes items from their texts."""

import functools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.catalogue.whitening import Whitening
from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.data.padding import pad_to
from recjax.data.text.packing import Items, Packed, Tokens
from recjax.data.text.tokenize import TextTokenizer
from recjax.evaluation.subgroups import event_group
from recjax.inference.parts import ItemVectors
from recjax.models.encoders.base import EncoderConfig
from recjax.models.heads import EVENT_BIAS
from recjax.models.recommender import Recommender, make_model

BATCH_SIZES = (1, 32)  # texts that are encoded at a time
MIN_TOKENS = 16  # lengths of rows are powers of two from here
ID_VECTORS = "items/id/vectors/embedding"  # path of the ids' vectors
BIAS = "head/bias"
NEW = -1  # in place of an item's index: the item was not in the training


class ItemEncoder:
    """Encodes items as the item tower and the head do, see `item_params`.

    Args:
      config: the config of the run.
      params: all parameters by path.
      encoder_config: static description of the text encoder.
      folder: directory of the tokenizer.
      whitening: of the text vectors, if the item tower reads whitened ones.
      events_N: training events of the items of the training.
    """

    def __init__(
        self,
        config: Any,
        params: FlatParams,
        encoder_config: EncoderConfig,
        folder: Path,
        whitening: Whitening | None,
        events_N: np.ndarray,
    ):
        self.config = config
        self.encoder_config = encoder_config
        self.folder = folder
        self.whitening = whitening
        # The same model with a catalogue of one batch of new items.
        size = BATCH_SIZES[-1]
        self._model = make_model(config, size, encoder_config)
        by_item = (ID_VECTORS, BIAS, EVENT_BIAS)
        self._by_item = {path: params[path] for path in by_item if path in params}
        self._events_N = events_N
        own = item_params(params, np.full(size, NEW), events_N)
        self._flat_params = jax.device_put(own)
        self._params = unflatten_params(self._flat_params)

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the pooled outputs of the encoder, not whitened: vectors_UxE.

        Raises:
          UserError: the texts cannot be tokenised.
        """
        tokens = self._tokenizer(texts)
        out = np.zeros((len(texts), self.encoder_config.hidden_size), np.float32)
        # Texts of similar length share a batch, so that little of it is padding.
        order = np.argsort(tokens.lengths, kind="stable")
        for start in range(0, len(texts), BATCH_SIZES[-1]):
            chosen = order[start : start + BATCH_SIZES[-1]]
            size = BATCH_SIZES[0] if len(chosen) == 1 else BATCH_SIZES[-1]
            padded = _pad_texts(tokens, chosen, size)
            pooled_UxE = pool_texts(self._model, self._params, *padded)
            out[chosen] = np.asarray(pooled_UxE)[: len(chosen)]
        return out

    @functools.cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer(
            self.folder,
            max_tokens=self.config.text.max_tokens,
            vocab_size=self.encoder_config.vocab_size,
        )

    def warm_up(self) -> None:
        """Reads the tokenizer, and compiles the programs for texts of all lengths."""
        _ = self._tokenizer
        width = MIN_TOKENS
        while width < 2 * self.config.text.max_tokens:
            for shape in ((size, width) for size in BATCH_SIZES):
                padded = np.zeros(shape, np.int32), np.zeros(shape, bool)
                pool_texts(self._model, self._params, *padded)
            width *= 2
        empty_UxE = np.zeros((BATCH_SIZES[-1], self.encoder_config.hidden_size))
        finish_items(self._model, self._params, empty_UxE.astype(np.float32))

    def encode(
        self, texts: Sequence[str], items_U: np.ndarray | None = None
    ) -> ItemVectors:
        """Encodes the texts of U items: their vectors and biases.

        Args:
          texts: the texts.
          items_U: index of each item in the catalogue of the training, whose id vector
            and bias it keeps; `NEW` for others. None: all are new.

        Raises:
          UserError: the texts cannot be tokenised.
        """
        read_UxE = self.text_vectors(texts)
        if self.whitening is not None:
            read_UxE = self.whitening(read_UxE)
        size, parts = BATCH_SIZES[-1], []
        for start in range(0, len(texts), size):
            part_UxE = read_UxE[start : start + size]
            padded_UxE = np.pad(part_UxE, ((0, size - len(part_UxE)), (0, 0)))
            params = self._params
            if items_U is not None:
                rows_U = pad_to(items_U[start : start + size], size, NEW)
                own = item_params(self._by_item, rows_U, self._events_N)
                params = unflatten_params({**self._flat_params, **own})
            found = finish_items(self._model, params, padded_UxE)
            parts.append([np.asarray(x)[: len(part_UxE)] for x in found])
        return ItemVectors(*map(np.concatenate, zip(*parts, strict=True)))


# Compiled once for all encoders of the same architecture.
@partial(jax.jit, static_argnums=0)
def pool_texts(
    model: Recommender, params: Any, ids_UxL: jax.Array, mask_UxL: jax.Array
) -> jax.Array:
    """Encodes texts, each in a row of its own, padded on the right: pooled_UxE."""
    assert model.encoder_config is not None
    num_texts, length = mask_UxL.shape
    column_UxL = jnp.broadcast_to(jnp.arange(length), mask_UxL.shape)
    row_Ux1 = jnp.arange(num_texts)[:, None]
    rows: Any = (
        row_Ux1 * length + column_UxL,
        jnp.where(mask_UxL, column_UxL, 0),
        mask_UxL.astype(jnp.int32),
        jnp.where(mask_UxL, row_Ux1, num_texts),
        row_Ux1[:, 0] * length,
    )
    packed = Packed(*rows)
    apply = partial(model.apply, {"params": params})
    with jax.default_matmul_precision("float32"):
        states_UxLxE = apply(
            {"text": {"ids_T": ids_UxL.reshape(-1)}},
            packed,
            model.encoder_config.num_blocks,
            method=Recommender.encode_prefix,
        )
        return apply(states_UxLxE, packed, method=Recommender.pool_text)


@partial(jax.jit, static_argnums=0)
def finish_items(
    model: Recommender, params: Any, vectors_UxE: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Turns text vectors into history_UxD, candidates_UxD and bias_U."""
    apply = partial(model.apply, {"params": params})
    items_U = np.arange(len(vectors_UxE))
    items = Items(items_U, np.zeros(len(items_U), np.float32), None)
    with jax.default_matmul_precision("float32"):
        vectors_UxD = apply(
            {"text": {"vectors_NxE": vectors_UxE}},
            items,
            method=Recommender.encode_items,
        )
        candidates_UxD, history_UxD = apply(
            vectors_UxD,
            graph_without_events(len(vectors_UxE)) if model.graph_layers else None,
            method=Recommender.propagate,
        )
        candidates_UxD, bias_U = apply(
            candidates_UxD, items_U, method=Recommender.item_candidates
        )
    return history_UxD, candidates_UxD, bias_U


def graph_without_events(size: int) -> dict[str, np.ndarray]:
    """Returns the graph of items without events, for graph towers."""
    none = np.zeros(0, np.int32)
    return {
        "user_E": none,
        "item_E": none,
        "weight_E": np.zeros(0, np.float32),
        "root_N": np.zeros(size, np.float32),
        "user_V": np.zeros(1, np.int32),
    }


def item_params(
    params: FlatParams, items_U: np.ndarray, events_N: np.ndarray
) -> FlatParams:
    """Returns the parameters for a catalogue of other items.

    A new item has no id vector: where the item tower reads ids, it reads zeros. Its
    bias is that of new items, if validation chose one, else the mean of the catalogue.

    Args:
      params: those of the catalogue of the training.
      items_U: index of each item in that catalogue; `NEW` for a new item.
      events_N: training events of the items of that catalogue.
    """
    own, is_new_U = dict(params), items_U == NEW
    if ID_VECTORS in own:
        vectors_UxD = np.asarray(own[ID_VECTORS])[items_U]
        own[ID_VECTORS] = np.where(is_new_U[:, None], np.float32(0), vectors_UxD)
    if BIAS in own:
        bias_N = np.asarray(own[BIAS])
        new = np.mean(bias_N)
        if EVENT_BIAS in own:
            # New items were no negatives in training, so that their own bias is 0.
            by_group_3 = np.append(np.asarray(own[EVENT_BIAS]), np.float32(0))
            bias_N = bias_N + by_group_3[event_group(events_N)]
            new = by_group_3[0]
        own[BIAS] = np.where(is_new_U, np.float32(new), bias_N[items_U])
    return own


def _pad_texts(
    tokens: Tokens, chosen: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pads texts to one of few shapes: ids_UxL, and mask_UxL, False at padding."""
    longest = max(int(tokens.lengths[chosen].max(initial=1)), MIN_TOKENS)
    shape = size, 2 ** math.ceil(math.log2(longest))
    ids_UxL, mask_UxL = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, text in enumerate(chosen):
        start, end = tokens.offsets[text : text + 2]
        ids_UxL[row, : end - start] = tokens.ids[start:end]
        mask_UxL[row, : end - start] = True
    return ids_UxL, mask_UxL
