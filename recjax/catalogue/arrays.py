"""Arrays of the catalogue on the devices: token ids, or a frozen prefix's output."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from recjax.catalogue.frozen_prefix import PrefixEncoder, is_pooled, split_catalogue
from recjax.catalogue.prefix_cache import GIB
from recjax.catalogue.whitening import Whitening, fit_whitening
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, tree_bytes
from recjax.data.batching.negatives import NegativeStrategy
from recjax.data.text.packing import Items, Packing
from recjax.models.recommender import Recommender
from recjax.runtime.mesh import replicate, shard_batch


@dataclass(frozen=True)
class CatalogueArrays:
    """Per-item arrays that the item tower reads during one phase.

    Iterating yields the catalogue piece by piece, each piece as `take` returns it.

    Attributes:
      by_source: item source -> its arrays of all items, on the devices.
      pieces: all items in pieces, on the host.
      packing: how texts are packed; None if a step encodes no text.
      mapped_TxE: token states in a memory-mapped file, if they are too large for RAM.
      whitening: the transform of the vectors that the text source reads, if any.
    """

    mesh: Mesh
    by_source: dict[str, dict[str, Any]]
    pieces: list[Items]
    packing: Packing | None
    mapped_TxE: np.ndarray | None = None
    whitening: Whitening | None = None

    def take(self, items: Items) -> tuple[Any, Items]:
        """Returns the arrays that the items read, and the items, on the devices."""
        if self.mapped_TxE is None:
            return self.by_source, shard_batch(items, self.mesh)
        packed = items.packed
        assert packed is not None
        # From a mapped file only the states of the items' own texts are read.
        states_RxLxE = np.take(self.mapped_TxE, packed.index_RxL, axis=0)
        states_TxE = states_RxLxE.reshape(-1, states_RxLxE.shape[-1])
        # The states lie in the order of the rows now, so each index is its position.
        shape = packed.index_RxL.shape
        index_RxL = np.arange(packed.index_RxL.size, dtype=np.int32).reshape(shape)
        items = items._replace(packed=packed._replace(index_RxL=index_RxL))
        states_TxE, items = shard_batch((states_TxE, items), self.mesh)
        return {"text": {"states_TxE": states_TxE}}, items

    def __iter__(self) -> Iterator[tuple[Any, Items]]:
        # Mapped states are read again each time: together they do not fit in memory.
        if self.mapped_TxE is not None:
            return map(self.take, self.pieces)
        return iter(self._placed_pieces)

    @functools.cached_property
    def _placed_pieces(self) -> list[tuple[Any, Items]]:
        return [self.take(items) for items in self.pieces]

    def positions_N(self) -> np.ndarray:
        """Returns the position of each item in the concatenated pieces."""
        items = np.concatenate([piece.items_U for piece in self.pieces])
        num_padding = (items < 0).sum()  # padding is -1 and sorts first
        return np.argsort(items, kind="stable")[num_padding:]


@dataclass(frozen=True)
class CatalogueBuilder:
    """Builds the catalogue's arrays for each phase; created once per run."""

    num_items: int
    config: Any  # `config.text`
    mesh: Mesh
    prefix_encoder: PrefixEncoder | None  # None without a text source
    # In a dry run: maps the shape of a frozen prefix to what replaces its output.
    placeholder: Callable[[jax.ShapeDtypeStruct], Any] | None = None

    def build(
        self,
        model: Recommender,
        params: FlatParams,
        blocks: int,
        negatives: NegativeStrategy | None = None,
    ) -> CatalogueArrays:
        """Builds the arrays of a phase whose model has `blocks` frozen blocks.

        With frozen blocks the text source reads their output. `text.whiten` applies to
        the vectors of a completely frozen encoder; the cache keeps them unwhitened.

        Raises:
          UserError: the negatives make every step read the states of all items, and
            these exceed `text.cache_ram_gib`.
        """
        encoder = self.prefix_encoder
        if encoder is None:
            return self._arrays({}, None)
        if not blocks:
            ids = {"text": {"ids_T": encoder.packing.tokens.ids}}
            return self._arrays(replicate(ids, self.mesh), encoder.packing)
        if self.placeholder is not None:
            prefix: Any = self.placeholder(encoder.shape(model, blocks))
        else:
            prefix = encoder.encode(model, params, blocks)
        is_shape = isinstance(prefix, jax.ShapeDtypeStruct)
        if is_pooled(model, blocks):
            # No text is left to encode. One vector per item is small compared with its
            # states, so vectors are always read into memory.
            whitening = None
            if self.config.whiten and not is_shape:
                whitening = fit_whitening(prefix)
                prefix = whitening(prefix)
            by_source = self._replicate("vectors_NxE", prefix)
            return replace(self._arrays(by_source, None), whitening=whitening)
        # Upper layers train on the states of the tokens.
        if (num_bytes := tree_bytes(prefix)) > self.config.cache_ram_gib * GIB:
            if negatives is not None and negatives.needs_whole_catalogue:
                raise UserError(
                    f"negatives: {negatives.name!r} needs the whole frozen prefix "
                    f"({num_bytes / GIB:.1f} GiB) in memory in every step, more than "
                    "text.cache_ram_gib; raise that limit or choose other negatives"
                )
            if not is_shape:
                return self._arrays({}, encoder.packing, prefix)
        return self._arrays(self._replicate("states_TxE", prefix), encoder.packing)

    def text_vectors(self, model: Recommender, params: FlatParams) -> np.ndarray:
        """Returns vectors_NxE of all texts, by the encoder with these parameters.

        Attention pooling has to be learned, so the mean replaces it here.
        """
        assert self.prefix_encoder is not None
        assert model.encoder_config is not None
        blocks = model.encoder_config.num_blocks
        model = model.without_learned_pooling()
        return np.asarray(self.prefix_encoder.encode(model, params, blocks))

    def _arrays(
        self,
        by_source: dict[str, dict[str, Any]],
        packing: Packing | None,
        mapped_TxE: np.ndarray | None = None,
    ) -> CatalogueArrays:
        pieces = split_catalogue(self.num_items, packing, self.config, self.mesh)
        return CatalogueArrays(self.mesh, by_source, pieces, packing, mapped_TxE)

    def _replicate(self, name: str, prefix: Any) -> dict[str, dict[str, Any]]:
        if not isinstance(prefix, jax.ShapeDtypeStruct):
            prefix = replicate(np.asarray(prefix), self.mesh)
        return {"text": {name: prefix}}
