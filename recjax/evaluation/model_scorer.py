"""The compiled evaluation functions of a model: encode the catalogue, rank queries."""

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
    """Encodes one catalogue by a model and ranks queries against it.

    Args:
      model: the model, with the phase's frozen blocks.
      chunks: pieces of the catalogue on the devices, each `(arrays, items)`; together
        they hold every item once.
      place_N: position of each item in the concatenated pieces.
      k: number of best candidates to keep.
      compiler: compiles and counts the functions.
      graph: graph of the training events, if the model has graph layers.
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
        self.model = model
        self.chunks = chunks
        self.graph = graph
        self.place_N = place_N
        self.k = k
        self.num_items = len(place_N)
        everywhere = compiler.replicated
        self._encode = compiler("encode_items", self._encode_chunk)
        self._join = compiler("join", self._join_chunks, out_shardings=everywhere)
        self._rank = compiler(
            "user_queries", self._rank_batch, out_shardings=everywhere
        )
        # (params, encoded, queries, weights_WxM) -> counts, see `rank_by_weighting`
        self.compare = compiler(
            "rank_by_weighting", self._compare_batch, out_shardings=everywhere
        )

    def encode_catalogue(self, params: Any) -> tuple[jax.Array, Index]:
        """Returns vectors_NxD for reading histories, and the index of all items."""
        parts = [self._encode(params, *chunk) for chunk in self.chunks]
        encoded: tuple[jax.Array, Index] = self._join(params, parts, self.graph)
        return encoded

    def rank(
        self, params: Any, encoded: tuple[jax.Array, Index], batch: Queries
    ) -> Ranked:
        """Ranks a batch of queries against an encoded catalogue."""
        return self._rank(params, encoded, batch)

    def _encode_chunk(self, params: Any, catalogue: Any, items: Items) -> jax.Array:
        vectors_UxD: jax.Array = self.model.apply(
            {"params": params}, catalogue, items, method=Recommender.encode_items
        )
        return vectors_UxD

    def _join_chunks(self, params: Any, parts: list[jax.Array], graph: Any) -> Any:
        variables = {"params": params}
        candidates_NxD, history_NxD = self.model.apply(
            variables,
            jnp.concatenate(parts)[self.place_N],
            graph,
            method=Recommender.propagate,
        )
        index = self.model.apply(
            variables,
            candidates_NxD,
            jnp.arange(self.num_items),
            method=Recommender.item_candidates,
        )
        return history_NxD, make_index(*index)

    def _query(self, params: Any, vectors_NxD: jax.Array, batch: Queries) -> jax.Array:
        queries_BxD: jax.Array = self.model.apply(
            {"params": params},
            vectors_NxD,
            batch.history_BxH,
            batch.mask_BxH,
            method=Recommender.user_queries,
        )
        return queries_BxD

    def _rank_batch(
        self, params: Any, encoded: tuple[jax.Array, Index], batch: Queries
    ) -> Ranked:
        vectors_NxD, index = encoded
        queries_BxD = self._query(params, vectors_NxD, batch)
        fused_scores_BxN = None
        if batch.baseline_scores_BxMxN is not None:
            fused_scores_BxN = self.model.apply(
                {"params": params},
                batch.baseline_scores_BxMxN,
                method=Recommender.fuse_scores,
            )
        return rank_queries(
            queries_BxD, index, batch, self.k, self.num_items, fused_scores_BxN
        )

    def _compare_batch(
        self,
        params: Any,
        encoded: tuple[jax.Array, Index],
        batch: Queries,
        weights_WxM: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        vectors_NxD, index = encoded
        queries_BxD = self._query(params, vectors_NxD, batch)
        assert batch.baseline_scores_BxMxN is not None
        scores_BxN = score_items(queries_BxD, index)[:, : self.num_items]
        baseline_scores_BxMxN = jnp.asarray(batch.baseline_scores_BxMxN)
        return rank_by_weighting(scores_BxN, baseline_scores_BxMxN, weights_WxM, batch)
