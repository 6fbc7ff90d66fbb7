"""The catalogue's arrays on the devices: tokens, or what frozen blocks make of them."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from recjax.catalogue.frozen_prefix import encode_prefix
from recjax.catalogue.prefix_cache import DTYPES, GIB
from recjax.catalogue.whitening import whiten
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, tree_bytes
from recjax.data.text.packing import Items, Packing
from recjax.models.recommender import Recommender
from recjax.training.context import Run


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
            return self.whole, self.run.shard_batch(items)
        packed = items.packed
        assert packed is not None
        states_RxLxE = np.take(self.mapped_TxE, packed.index_RxL, axis=0)
        places = np.arange(packed.index_RxL.size, dtype=np.int32)
        packed = packed._replace(index_RxL=places.reshape(packed.index_RxL.shape))
        states_TxE = states_RxLxE.reshape(-1, states_RxLxE.shape[-1])
        catalogue = {"text": {"states_TxE": self.run.shard_batch(states_TxE)}}
        return catalogue, self.run.shard_batch(items._replace(packed=packed))

    @functools.cached_property
    def pieces(self) -> list[Items]:
        """The whole catalogue, on the host."""
        return self.run.chunks(self.packing)

    def places(self) -> np.ndarray:
        """Where each item stands in the pieces of `chunks`, one after another."""
        rows = np.concatenate([x.items_U for x in self.pieces])
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
    r: Run, model: Recommender, params: FlatParams, blocks: int, negatives: str
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
      UserError: a step would read more than `text.cache_ram_gib` holds.
    """
    if r.tokens is None:
        return CatalogueArrays(r, {}, None)
    if not blocks:
        whole = r.replicate({"text": {"ids_T": r.tokens.ids}})
        return CatalogueArrays(r, whole, r.packing())
    array = encode_prefix(r, model, params, blocks)
    assert model.encoder_config is not None
    pooled = blocks == model.encoder_config.num_blocks
    if isinstance(array, np.memmap) and not pooled:
        _check_prefix_fits(negatives, array.nbytes)
        return CatalogueArrays(r, {}, r.packing(), array)
    if pooled and r.config.text.whiten:
        array = whiten(array)
    name = "vectors_NxE" if pooled else "states_TxE"
    whole = r.replicate({"text": {name: np.asarray(array)}})
    return CatalogueArrays(r, whole, None if pooled else r.packing())


def _check_prefix_fits(negatives: str, num_bytes: int) -> None:
    """States in a file, of so many bytes, cannot be candidates of every step."""
    if negatives == "all":
        raise UserError(
            "negatives: 'all' needs the whole frozen prefix, "
            f"{num_bytes / GIB:.1f} GiB, in memory in every step; allow it with "
            "text.cache_ram_gib, or choose other negatives"
        )


def abstract_catalogue(
    r: Run, model: Recommender, params: FlatParams, blocks: int, negatives: str
) -> CatalogueArrays:
    """`make_catalogue` with the shapes of what frozen blocks would make."""
    if r.tokens is None or not blocks:
        return make_catalogue(r, model, params, blocks, negatives)
    assert model.encoder_config is not None
    pooled = blocks == model.encoder_config.num_blocks
    rows = r.data.num_items if pooled else len(r.tokens.ids)
    shape = rows, model.encoder_config.hidden_size
    array = jax.ShapeDtypeStruct(shape, DTYPES[r.config.text.cache_dtype])
    num_bytes = tree_bytes(array)
    if not pooled and num_bytes > r.config.text.cache_ram_gib * GIB:
        _check_prefix_fits(negatives, num_bytes)
    name = "vectors_NxE" if pooled else "states_TxE"
    return CatalogueArrays(r, {"text": {name: array}}, None if pooled else r.packing())
