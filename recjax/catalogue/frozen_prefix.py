"""Output of a text encoder's frozen prefix for every item, computed once.

The prefix consists of the leading blocks (embeddings, layer 0, 1, ..., pooling) without
a trainable parameter. Its output is constant during a phase, so a train step starts
where the prefix ends.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from recjax.catalogue.prefix_cache import DTYPES, GIB, Allocate, PrefixCache
from recjax.common.errors import UserError
from recjax.common.files import cache_dir, hash_arrays
from recjax.common.param_paths import TEXT_PARAMS, FlatParams, unflatten_params
from recjax.data import padding
from recjax.data.text import packing as text_packing
from recjax.data.text.packing import Items, Packed, Packing, Tokens
from recjax.models import recommender
from recjax.models.encoders import base, bert
from recjax.models.items import text_source, tower
from recjax.models.items.text_source import block_of
from recjax.models.layers import (
    activations,
    attention,
    dropout,
    pooling,
    token_dropout,
)
from recjax.models.recommender import Recommender
from recjax.runtime.compile_cache import platform_key
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import replicate, row_multiple, shard_batch

SAMPLED_PIECES = 3  # of the catalogue, to estimate the seconds of all of them
# Modules that decide the bits of a prefix. A change to any of them, even to a comment,
# invalidates the cached files: a repeated computation costs less than a stale prefix.
# The packing is among them because the shape of a row decides the order of summation.
ENCODER_CODE = (
    *(activations, attention, dropout, base, bert, pooling, text_source, tower),
    *(token_dropout, recommender, padding, text_packing, sys.modules[__name__]),
)


def make_packing(tokens: Tokens, config: Any, mesh: Mesh) -> Packing:
    """Returns the packing of the items' texts; `config` is `config.text` of a run."""
    # A text is never split, so a row is at least as long as the longest text.
    width = max(config.row_tokens, int(tokens.lengths.max()))
    # Rows must divide over the mesh, and into the slices of rematerialisation.
    return Packing(tokens, width, math.lcm(row_multiple(mesh), config.remat_rows or 1))


def split_catalogue(
    num_items: int, packing: Packing | None, config: Any, mesh: Mesh
) -> list[Items]:
    """Splits the catalogue into pieces of up to `text.rows_per_batch` rows of text."""
    multiple = row_multiple(mesh)
    if packing is None:  # no texts to encode: one piece holds all items
        return [text_packing.whole_catalogue(num_items, None, multiple)]
    num_rows = config.rows_per_batch
    return text_packing.catalogue_pieces(num_items, packing, multiple, num_rows)


def is_pooled(model: Recommender, blocks: int) -> bool:
    """Returns whether the first `blocks` blocks are all blocks, pooling included."""
    assert model.encoder_config is not None
    return blocks == model.encoder_config.num_blocks


def compute_prefix(
    encode: Callable[[Packed], jax.Array],
    pieces: Iterable[Items],
    *,
    pooled: bool,
    num_rows: int,
    allocate: Allocate,
    advance: Callable[[int], Any] = lambda num_items: None,
) -> np.ndarray:
    """Encodes the catalogue into one array: vectors_NxE if `pooled`, else states_TxE.

    Args:
      encode: packed texts -> pooled_UxE if `pooled`, else states_RxLxE.
      pieces: items with packed texts; together they hold every item once.
      num_rows: N if `pooled`, else T, the number of tokens of all texts.
      allocate: creates the result array from its shape.
      advance: receives the number of items of each encoded piece.

    Raises:
      UserError: the output is not finite.
    """
    out: np.ndarray | None = None
    for items in pieces:
        packed = items.packed
        assert packed is not None
        is_item_U = items.items_U >= 0
        # Padding has no row in the result.
        valid, index = packed.segment_RxL > 0, packed.index_RxL
        if pooled:
            valid, index = is_item_U, items.items_U
        values = np.asarray(encode(packed))[valid]
        if not np.isfinite(values).all():
            raise UserError(
                "text.encoder: its output is not finite for some texts; its weights or "
                "its config.json are damaged"
            )
        if out is None:  # only the first output tells the width E
            out = allocate((num_rows, values.shape[-1]))
        out[index[valid]] = values
        advance(int(is_item_U.sum()))
    assert out is not None
    return out


@dataclass(frozen=True)
class PrefixEncoder:
    """Encodes the texts of all items with the frozen blocks of a model."""

    packing: Packing  # with the texts of all items
    num_items: int
    config: Any  # `config.text`
    mesh: Mesh
    compiler: Compiler
    log: Callable[[str], None]
    # Creates a progress bar from total, done, description and unit.
    progress_bar: Callable[[int, int, str, str], Any]

    def encode(self, model: Recommender, params: FlatParams, blocks: int) -> np.ndarray:
        """Returns the output of the first `blocks` blocks, at least 1, for all items.

        The result is vectors_NxE if these are all blocks, else states_TxE. It is read
        from the cache if an earlier run has computed exactly the same.
        """
        cache = self._cache()
        key = self.cache_key(model, params, blocks)
        array, source = cache.load(key), "read from"
        if jax.process_count() > 1:
            # Encoding is collective. If one process lacks the file, all must encode,
            # or that process would wait for the others forever.
            found = multihost_utils.process_allgather(np.array(array is not None))
            array = array if found.all() else None
        if array is None:
            try:
                array = self.compile(model, blocks)(params, cache.allocate)
                array, source = cache.commit(key, array), "kept in"
            finally:
                cache.discard()
        stored = cache.max_bytes and cache.path(key).exists()
        source = f"{source} {cache.path(key)}" if stored else "in memory"
        mapped = ", memory-mapped" if isinstance(array, np.memmap) else ""
        assert model.encoder_config is not None
        self.log(
            f"frozen prefix: {blocks} of {model.encoder_config.num_blocks} blocks, "
            f"{array.nbytes / 2**20:.1f} MiB {array.dtype}, {source}{mapped}"
        )
        return array

    def _cache(self) -> PrefixCache:
        return PrefixCache(
            cache_dir() / "prefix",
            self.config.cache_dtype,
            max_bytes=self.config.cache_disk_gib * GIB,
            mapped_above=self.config.cache_ram_gib * GIB,
        )

    def is_cached(self, key: str) -> bool:
        """Returns whether the cache has a file, damaged or not, for a `cache_key`."""
        cache = self._cache()
        return bool(cache.max_bytes) and cache.path(key).exists()

    def sample(
        self, model: Recommender, params: FlatParams, blocks: int
    ) -> tuple[Callable[[], Any], float]:
        """Returns a function that encodes a sample of the catalogue.

        Returns:
          The function, and the size of the catalogue in such samples.
        """
        encode = self._compile_blocks(model, blocks)
        pieces = split_catalogue(self.num_items, self.packing, self.config, self.mesh)
        chosen = pieces[:: -(-len(pieces) // SAMPLED_PIECES)]
        text = {p: x for p, x in params.items() if p.startswith(TEXT_PARAMS)}

        def encode_part() -> list[jax.Array]:
            return [encode(text, items.packed) for items in chosen if items.packed]

        return encode_part, len(pieces) / len(chosen)

    def shape(self, model: Recommender, blocks: int) -> jax.ShapeDtypeStruct:
        """Returns the shape and dtype of what `encode` returns, without computing."""
        assert model.encoder_config is not None
        num_tokens = len(self.packing.tokens.ids)
        num_rows = self.num_items if is_pooled(model, blocks) else num_tokens
        shape = num_rows, model.encoder_config.hidden_size
        return jax.ShapeDtypeStruct(shape, DTYPES[self.config.cache_dtype])

    def cache_key(self, model: Recommender, params: FlatParams, blocks: int) -> str:
        """Hashes everything that the result depends on, down to its last bit."""
        # A run must give the same numbers whether or not it finds a cached file, so the
        # key also covers the packing, the mesh, the processor and the code.
        assert model.text is not None
        assert model.encoder_config is not None
        frozen = [
            (path, x)
            for path, x in params.items()
            if block_of(path, model.encoder_config) in range(blocks)
        ]
        packing, config = self.packing, self.config
        texts = [("ids", packing.tokens.ids), ("offsets", packing.tokens.offsets)]
        code = [
            (module.__name__, np.fromfile(str(module.__file__), np.uint8))
            for module in ENCODER_CODE
        ]
        return hash_arrays(
            [*frozen, *texts, *code],
            (blocks, model.text.pooling, model.encoder_config, str(model.text.dtype)),
            (config.cache_dtype, packing.width, packing.multiple),
            config.rows_per_batch,
            (sorted(self.mesh.shape.items()), jax.devices()[0].device_kind),
            platform_key(),
        )

    def compile(
        self, model: Recommender, blocks: int
    ) -> Callable[[FlatParams, Allocate], np.ndarray]:
        """Returns a function that encodes the catalogue, without the cache.

        The function takes all parameters and an allocator, see `compute_prefix`. It
        compiles at its first call and keeps the programs.
        """
        encode = self._compile_blocks(model, blocks)
        pieces = split_catalogue(self.num_items, self.packing, self.config, self.mesh)

        def encode_catalogue(params: FlatParams, allocate: Allocate) -> np.ndarray:
            text = {p: x for p, x in params.items() if p.startswith(TEXT_PARAMS)}
            bar = self.progress_bar(self.num_items, 0, "encoding items", "item")
            array = compute_prefix(
                functools.partial(encode, text),
                pieces,
                pooled=is_pooled(model, blocks),
                num_rows=self.shape(model, blocks).shape[0],
                allocate=allocate,
                advance=bar.update,
            )
            bar.close()
            return array

        return encode_catalogue

    def _compile_blocks(
        self, model: Recommender, blocks: int
    ) -> Callable[[FlatParams, Packed], jax.Array]:
        """Compiles the first `blocks` blocks; their output lies on every device."""
        ids = {"text": {"ids_T": self.packing.tokens.ids}}
        catalogue = replicate(ids, self.mesh)

        def apply(flat: FlatParams, *args: Any, method: Any) -> jax.Array:
            return model.apply({"params": unflatten_params(flat)}, *args, method=method)

        def run_blocks(flat: FlatParams, packed: Packed) -> jax.Array:
            method = Recommender.encode_prefix
            return apply(flat, catalogue, packed, blocks, method=method)

        def pool_states(flat: FlatParams, states_RxLxE: Any, packed: Packed) -> Any:
            return apply(flat, states_RxLxE, packed, method=Recommender.pool_text)

        replicated = self.compiler.replicated
        encoder = self.compiler("encoder", run_blocks, out_shardings=replicated)
        pool = self.compiler("pooling", pool_states, out_shardings=replicated)

        def encode(text: FlatParams, packed: Packed) -> jax.Array:
            placed = shard_batch(packed, self.mesh)
            out = encoder(text, placed)
            return pool(text, out, placed) if is_pooled(model, blocks) else out

        return encode
