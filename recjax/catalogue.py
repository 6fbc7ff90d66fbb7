"""The catalogue's arrays on the devices: tokens, or what frozen blocks make of them."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from recjax import compile_cache, trees
from recjax.data.batches import Items, Packing
from recjax.data.sources import cache_dir
from recjax.errors import UserError
from recjax.models import attention, bert, items, prefix
from recjax.models.prefix import Allocate, block_of, compute_prefix
from recjax.models.recommender import Recommender
from recjax.prefix_store import DTYPES, GIB, PrefixStore, digest
from recjax.run import Run
from recjax.whitening import whiten

ENCODER_CODE = (attention, bert, items, prefix)


@dataclass(frozen=True)
class CatalogueArrays:
    """What the item tower reads of the catalogue.

    Attributes:
      run: whose mesh they are on.
      whole: per source, arrays of all items on the devices.
      packing: how texts are packed; None where nothing is left to pack.
      mapped_TxE: states of all tokens in a file, too many for memory.
    """

    run: Run
    whole: Any
    packing: Packing | None
    mapped_TxE: np.ndarray | None = None

    def take(self, items: Items) -> tuple[Any, Items]:
        """For items on the host: the catalogue, and the items, on the devices.

        Of states in a file only those of the items' own texts are read.
        """
        if self.mapped_TxE is None:
            return self.whole, self.run.put(items)
        packed = items.packed
        assert packed is not None
        states_RxLxE = np.take(self.mapped_TxE, packed.index_RxL, axis=0)
        places = np.arange(packed.index_RxL.size, dtype=np.int32)
        packed = packed._replace(index_RxL=places.reshape(packed.index_RxL.shape))
        states_TxE = states_RxLxE.reshape(-1, states_RxLxE.shape[-1])
        catalogue = {"text": {"states_TxE": self.run.put(states_TxE)}}
        return catalogue, self.run.put(items._replace(packed=packed))

    @functools.cached_property
    def pieces(self) -> list[Items]:
        """The whole catalogue, on the host."""
        return self.run.chunks(self.packing)

    def places(self) -> np.ndarray:
        """Where each item stands in the pieces of `chunks`, one after another."""
        rows = np.concatenate([x.rows_U for x in self.pieces])
        return np.argsort(rows, kind="stable")[(rows < 0).sum() :]

    def chunks(self) -> Iterable[tuple[Any, Items]]:
        """The whole catalogue, piece by piece, to go through again and again."""
        if self.mapped_TxE is None:
            return [self.take(items) for items in self.pieces]
        return _Chunks(self, self.pieces)


@dataclass(frozen=True)
class _Chunks:
    """Pieces that are read from the file when their turn comes."""

    catalogue: CatalogueArrays
    pieces: Sequence[Items]

    def __iter__(self) -> Iterator[tuple[Any, Items]]:
        return map(self.catalogue.take, self.pieces)


def make_catalogue(
    r: Run, model: Recommender, params: trees.Flat, blocks: int, negatives: str
) -> CatalogueArrays:
    """The catalogue's arrays; with frozen blocks the text source gets their output.

    `text.whiten` is of that output alone: the store keeps it as it came.

    Args:
      r: the run.
      model: with `blocks` frozen.
      params: all, by path.
      blocks: how many are frozen, see `prefix.count_frozen_blocks`.
      negatives: what targets compete with; says whether a step reads all of it.

    Raises:
      UserError: a step would read more than `text.prefix_memory` holds.
    """
    if r.tokens is None:
        return CatalogueArrays(r, {}, None)
    if not blocks:
        whole = r.put_whole({"text": {"ids_T": r.tokens.ids}})
        return CatalogueArrays(r, whole, r.packing())
    array = encode_prefix(r, model, params, blocks)
    assert model.encoder_config is not None
    pooled = blocks == model.encoder_config.num_hidden_layers + 2
    if isinstance(array, np.memmap) and not pooled:
        _refuse_whole(negatives, array.nbytes)
        return CatalogueArrays(r, {}, r.packing(), array)
    if pooled and r.config.text.whiten:
        array = whiten(array)
    name = "vectors_NxE" if pooled else "states_TxE"
    whole = r.put_whole({"text": {name: np.asarray(array)}})
    return CatalogueArrays(r, whole, None if pooled else r.packing())


def _refuse_whole(negatives: str, num_bytes: int) -> None:
    """States in a file, of so many bytes, cannot be candidates of every step."""
    if negatives == "all":
        raise UserError(
            "negatives: 'all' needs the whole frozen prefix, "
            f"{num_bytes / GIB:.1f} GiB, in memory in every step; allow it with "
            "text.prefix_memory, or choose other negatives"
        )


def abstract_catalogue(
    r: Run, model: Recommender, params: trees.Flat, blocks: int, negatives: str
) -> CatalogueArrays:
    """`make_catalogue` with the shapes of what frozen blocks would make."""
    if r.tokens is None or not blocks:
        return make_catalogue(r, model, params, blocks, negatives)
    assert model.encoder_config is not None
    pooled = blocks == model.encoder_config.num_hidden_layers + 2
    rows = r.data.num_items if pooled else len(r.tokens.ids)
    shape = rows, model.encoder_config.hidden_size
    array = jax.ShapeDtypeStruct(shape, DTYPES[r.config.text.prefix_dtype])
    num_bytes = trees.num_bytes(array)
    if not pooled and num_bytes > r.config.text.prefix_memory * GIB:
        _refuse_whole(negatives, num_bytes)
    name = "vectors_NxE" if pooled else "states_TxE"
    return CatalogueArrays(r, {"text": {name: array}}, None if pooled else r.packing())


def encode_prefix(
    r: Run, model: Recommender, params: trees.Flat, blocks: int
) -> np.ndarray:
    """Output of the text encoder's first `blocks` blocks for the whole catalogue.

    vectors_NxE where these are all blocks, else states_TxE; from a file where a run
    has computed the same before.
    """
    c, packing = r.config.text, r.packing()
    assert model.encoder_config is not None
    layers = model.encoder_config.num_hidden_layers
    text = {path: x for path, x in params.items() if path.startswith(trees.TEXT)}
    store = PrefixStore(
        cache_dir() / "prefix",
        c.prefix_dtype,
        max_bytes=c.prefix_disk * GIB,
        mapped_above=c.prefix_memory * GIB,
    )
    # All that the result depends on to the last bit, so that it is the same with the
    # file and without.
    constant = [
        (path, x)
        for path, x in text.items()
        if (block := block_of(path, layers)) is not None and block < blocks
    ]
    code = [(m.__name__, np.fromfile(str(m.__file__), np.uint8)) for m in ENCODER_CODE]
    texts = [("ids", packing.tokens.ids), ("offsets", packing.tokens.offsets)]
    key = digest(
        [*constant, *texts, *code],
        (blocks, model.item_pooling, model.encoder_config, str(model.dtype)),
        (c.prefix_dtype, packing.width, packing.multiple, c.rows_per_batch),
        (sorted(r.mesh.shape.items()), jax.devices()[0].device_kind),
        compile_cache.platform_key(),
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
    r.reporter.say(
        f"frozen prefix: {blocks} of {layers + 2} blocks, "
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
        self.layers = model.encoder_config.num_hidden_layers
        ids = r.put_whole({"text": {"ids_T": self.packing.tokens.ids}})

        def encode(flat: trees.Flat, packed: Any) -> jax.Array:
            variables = {"params": trees.unflatten(flat)}
            return model.apply(
                variables, ids, packed, blocks, method=Recommender.encode_prefix
            )

        def pool(flat: trees.Flat, states: jax.Array, packed: Any) -> jax.Array:
            variables = {"params": trees.unflatten(flat)}
            return model.apply(variables, states, packed, method=Recommender.pool_text)

        everywhere = r.compiler.everywhere
        self._encode = r.compiler("encoder", encode, out_shardings=everywhere)
        self._pool = r.compiler("pooling", pool, out_shardings=everywhere)

    def __call__(self, text: trees.Flat, allocate: Allocate) -> np.ndarray:
        """See `compute_prefix`.

        Args:
          text: parameters of the text source.
          allocate: makes the array that is filled and returned.
        """
        r, n = self.run, self.run.data.num_items
        pieces = r.chunks(self.packing)
        bar = r.reporter.bar(n, 0, "encoding items", "item")
        out = compute_prefix(
            lambda packed: self._encode(text, r.put(packed)),
            lambda states, packed: self._pool(text, states, r.put(packed)),
            ((piece.rows_U, piece.packed) for piece in pieces),
            advance=bar.update,
            allocate=allocate,
            blocks=self.blocks,
            layers=self.layers,
            num_tokens=len(self.packing.tokens.ids),
            num_items=n,
        )
        bar.close()
        return out
