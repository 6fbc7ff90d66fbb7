"""An encoder's frozen prefix: its output for every item, computed once.

The freezing schedule alone decides how long the prefix is: the leading blocks
(embeddings, layer 0, 1, ..., pooling) none of whose parameters is trained.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from recjax.catalogue import frozen_prefix
from recjax.catalogue.prefix_cache import GIB, PrefixCache
from recjax.common.files import cache_dir, hash_arrays
from recjax.common.param_paths import TEXT_PARAMS, FlatParams, unflatten_params
from recjax.models.encoders import bert
from recjax.models.items import text_source
from recjax.models.items.text_source import block_of
from recjax.models.layers import activations, attention, pooling
from recjax.models.recommender import Recommender
from recjax.runtime.compile_cache import platform_key
from recjax.training.context import Run

Allocate = Callable[[tuple[int, ...]], np.ndarray]


def compute_prefix(
    encode: Callable[[Any], Any],
    pool: Callable[[Any, Any], Any],
    chunks: Iterable[tuple[np.ndarray, Any]],
    *,
    advance: Callable[[int], Any],
    allocate: Allocate,
    blocks: int,
    num_blocks: int,
    num_tokens: int,
    num_items: int,
) -> np.ndarray:
    """Runs the frozen blocks over the whole catalogue.

    Args:
      encode: packed texts -> states_RxLxE after the frozen blocks.
      pool: states and packed texts -> pooled_UxE.
      chunks: (items_U, packed) that together hold every catalogue row once.
      advance: receives how many more items are done, after each chunk.
      allocate: makes the array of that shape that the result is written to.
      blocks: how many blocks are frozen, at least 1.
      num_blocks: length of the chain, pooling included.
      num_tokens: T, tokens in the catalogue.
      num_items: N.

    Returns:
      vectors_NxE where everything is frozen, else states_TxE.
    """
    out: np.ndarray | None = None
    for items_U, packed in chunks:
        states = encode(packed)
        if blocks == num_blocks:
            values = np.asarray(pool(states, packed))
            where, size = items_U[items_U >= 0], num_items
            values = values[items_U >= 0]
        else:
            filled = np.asarray(packed.segment_RxL) > 0
            values = np.asarray(states)[filled]
            where, size = np.asarray(packed.index_RxL)[filled], num_tokens
        if out is None:
            out = allocate((size, values.shape[-1]))
        out[where] = values
        advance(int((items_U >= 0).sum()))
    assert out is not None
    return out


ENCODER_CODE = (activations, attention, bert, pooling, text_source, frozen_prefix)


def encode_prefix(
    r: Run, model: Recommender, params: FlatParams, blocks: int
) -> np.ndarray:
    """Output of the text encoder's first `blocks` blocks for the whole catalogue.

    vectors_NxE where these are all blocks, else states_TxE; from a file where a run
    has computed the same before.
    """
    c, packing = r.config.text, r.packing()
    assert model.text is not None
    assert model.encoder_config is not None
    text = {path: x for path, x in params.items() if path.startswith(TEXT_PARAMS)}
    store = PrefixCache(
        cache_dir() / "prefix",
        c.cache_dtype,
        max_bytes=c.cache_disk_gib * GIB,
        mapped_above=c.cache_ram_gib * GIB,
    )
    # All that the result depends on to the last bit, so that it is the same with the
    # file and without.
    constant = [
        (path, x)
        for path, x in text.items()
        if block_of(path, model.encoder_config) in range(blocks)
    ]
    code = [(m.__name__, np.fromfile(str(m.__file__), np.uint8)) for m in ENCODER_CODE]
    texts = [("ids", packing.tokens.ids), ("offsets", packing.tokens.offsets)]
    key = hash_arrays(
        [*constant, *texts, *code],
        (blocks, model.text.pooling, model.encoder_config, str(model.text.dtype)),
        (c.cache_dtype, packing.width, packing.multiple, c.rows_per_batch),
        (sorted(r.mesh.shape.items()), jax.devices()[0].device_kind),
        platform_key(),
    )
    array, how = store.load(key), "read from"
    if jax.process_count() > 1:  # all encode, unless all have found it
        found = multihost_utils.process_allgather(np.array(array is not None))
        array = array if found.all() else None
    if array is None:
        try:
            array = PrefixEncoder(r, model, blocks)(text, store.create)
            array, how = store.keep(key, array), "kept in"
        finally:
            store.discard()
    path = store.folder / f"{key}.npy"
    where = f"{how} {path}" if store.max_bytes and path.exists() else "in memory"
    if isinstance(array, np.memmap):
        where += ", mapped"
    r.reporter.log(
        f"frozen prefix: {blocks} of {model.encoder_config.num_blocks} blocks, "
        f"{array.nbytes / 2**20:.1f} MiB {array.dtype}, {where}"
    )
    return array


class PrefixEncoder:
    """The compiled first blocks of a text encoder, over the catalogue's packed texts.

    Args:
      r: the run.
      model: whose blocks they are.
      blocks: how many.
    """

    def __init__(self, r: Run, model: Recommender, blocks: int):
        assert model.encoder_config is not None
        self.run, self.blocks, self.packing = r, blocks, r.packing()
        self.num_blocks = model.encoder_config.num_blocks
        ids = r.replicate({"text": {"ids_T": self.packing.tokens.ids}})

        def encode(flat: FlatParams, packed: Any) -> jax.Array:
            variables = {"params": unflatten_params(flat)}
            return model.apply(
                variables, ids, packed, blocks, method=Recommender.encode_prefix
            )

        def pool(flat: FlatParams, states: jax.Array, packed: Any) -> jax.Array:
            variables = {"params": unflatten_params(flat)}
            return model.apply(variables, states, packed, method=Recommender.pool_text)

        everywhere = r.compiler.everywhere
        self._encode = r.compiler("encoder", encode, out_shardings=everywhere)
        self._pool = r.compiler("pooling", pool, out_shardings=everywhere)

    def __call__(self, text: FlatParams, allocate: Allocate) -> np.ndarray:
        """See `compute_prefix`.

        Args:
          text: parameters of the text source.
          allocate: makes the array that is filled and returned.
        """
        r, n = self.run, self.run.data.num_items
        pieces = r.chunks(self.packing)
        bar = r.reporter.bar(n, 0, "encoding items", "item")
        out = compute_prefix(
            lambda packed: self._encode(text, r.shard_batch(packed)),
            lambda states, packed: self._pool(text, states, r.shard_batch(packed)),
            ((piece.items_U, piece.packed) for piece in pieces),
            advance=bar.update,
            allocate=allocate,
            blocks=self.blocks,
            num_blocks=self.num_blocks,
            num_tokens=len(self.packing.tokens.ids),
            num_items=n,
        )
        bar.close()
        return out
