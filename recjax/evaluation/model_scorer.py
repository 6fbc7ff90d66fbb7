"""A model's compiled evaluation: encode the catalogue, rank a batch of queries."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batching.types import Queries
from recjax.data.text.packing import Items
from recjax.evaluation.ranking import Ranked, rank_by_weighting, rank_queries
from recjax.models.recommender import Recommender
from recjax.retrieval.index import Index, make_index, score_items
from recjax.runtime.compiler import Compiler


class ModelScorer:
    """A model's compiled evaluation functions over one catalogue.

    Args:
      model: with the phase's frozen blocks.
      chunks: pieces of the catalogue, arrays and items, on the devices, that
        together hold every item once.
      place_N: where each item stands in the pieces, one after another.
      k: how many of the best to keep.
      compiler: of the run.
      graph: of training events, where the model has layers of it.
    """

    def __init__(
        self,
        model: Recommender,
        chunks: Iterable[tuple[Any, Items]],
        place_N: np.ndarray,
        k: int,
        compiler: Compiler,
        graph: Any = None,
    ):
        self.model, self.chunks, self.graph = model, chunks, graph
        self.place_N, self.k = place_N, k
        self.num_items, everywhere = len(place_N), compiler.replicated
        self._encode = compiler("encode_items", self._encode_chunk)
        self._join = compiler("join", self._join_chunks, out_shardings=everywhere)
        self._rank = compiler(
            "user_queries", self._rank_batch, out_shardings=everywhere
        )
        # (params, encoded, queries, weights_WxM of a memory) -> see `ranking.compare`
        self.compare = compiler(
            "rank_by_weighting", self._compare_batch, out_shardings=everywhere
        )

    def encode_catalogue(self, params: Any) -> tuple[jax.Array, Index]:
        """vectors_NxD that histories are made of, and the index of all items."""
        parts = [self._encode(params, *chunk) for chunk in self.chunks]
        encoded: tuple[jax.Array, Index] = self._join(params, parts, self.graph)
        return encoded

    def _join_chunks(self, params: Any, parts: list[jax.Array], graph: Any) -> Any:
        variables, rows_N = {"params": params}, jnp.arange(self.num_items)
        ranks_NxD, read_NxD = self.model.apply(
            variables,
            jnp.concatenate(parts)[self.place_N],
            graph,
            method=Recommender.propagate,
        )
        index = self.model.apply(
            variables, ranks_NxD, rows_N, method=Recommender.item_candidates
        )
        return read_NxD, make_index(*index)

    def rank(self, params: Any, encoded: tuple[jax.Array, Index], q: Queries) -> Ranked:
        """Ranks a batch of queries against an encoded catalogue."""
        return self._rank(params, encoded, q)

    def _encode_chunk(self, params: Any, catalogue: Any, items: Items) -> jax.Array:
        vectors_UxD: jax.Array = self.model.apply(
            {"params": params}, catalogue, items, method=Recommender.encode_items
        )
        return vectors_UxD

    def _query(self, params: Any, vectors_NxD: jax.Array, q: Queries) -> jax.Array:
        queries_BxD: jax.Array = self.model.apply(
            {"params": params},
            vectors_NxD,
            q.history_BxH,
            q.mask_BxH,
            method=Recommender.user_queries,
        )
        return queries_BxD

    def _rank_batch(
        self, params: Any, encoded: tuple[jax.Array, Index], q: Queries
    ) -> Ranked:
        vectors_NxD, index = encoded
        queries_BxD, fused_scores_BxN = self._query(params, vectors_NxD, q), None
        if q.baseline_scores_BxMxN is not None:
            fused_scores_BxN = self.model.apply(
                {"params": params},
                q.baseline_scores_BxMxN,
                method=Recommender.fuse_scores,
            )
        return rank_queries(
            queries_BxD, index, q, self.k, self.num_items, fused_scores_BxN
        )

    def _compare_batch(
        self,
        params: Any,
        encoded: tuple[jax.Array, Index],
        q: Queries,
        weights_WxM: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        vectors_NxD, index = encoded
        queries_BxD = self._query(params, vectors_NxD, q)
        assert q.baseline_scores_BxMxN is not None
        plain_BxN = score_items(queries_BxD, index)[:, : self.num_items]
        return rank_by_weighting(
            plain_BxN, jnp.asarray(q.baseline_scores_BxMxN), weights_WxM, q
        )
