"""The compiled evaluation functions of a model: encode the catalogue, rank queries."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batching.types import Queries
from recjax.data.text.packing import Items
from recjax.evaluation.ranking import (
    Ranked,
    mark_items,
    rank_by_weighting,
    rank_queries,
)
from recjax.models.recommender import Recommender
from recjax.retrieval.index import Index, make_index, score_items
from recjax.runtime.compiler import Compiler

Encoded = tuple[jax.Array, Index]  # an encoded catalogue


class ModelScorer:
    """Encodes one catalogue by a model and ranks queries against it.

    Args:
      model: the model, with the phase's frozen blocks.
      pieces: pieces of the catalogue on the devices, each `(arrays, items)`; together
        they hold every item once.
      positions_N: position of each item in the concatenated pieces.
      k: number of best candidates to keep.
      compiler: compiles and counts the functions.
      graph: graph of the training events; None without graph layers.
      group_N: of each item by its training events, see `Recommender.item_candidates`.
    """

    def __init__(
        self,
        model: Recommender,
        pieces: Iterable[tuple[Any, Items]],
        positions_N: np.ndarray,
        k: int,
        compiler: Compiler,
        graph: Any,
        group_N: np.ndarray,
    ):
        self.model = model
        self.pieces = pieces
        self.graph = graph
        self.positions_N = positions_N
        self.group_N = group_N
        self.k = k
        self.num_items = len(positions_N)
        replicated = compiler.replicated
        self._encode = compiler("encode_items", self._encode_piece)
        self._join = compiler("join", self._join_pieces, out_shardings=replicated)
        # (params, encoded, queries) -> Ranked
        self.rank = compiler("user_queries", self._rank_batch, out_shardings=replicated)
        # (params, encoded without event bias, queries, weights_WxK of the M baselines,
        # then of new and cold items, then of seen ones) -> counts, see `ranking`
        self.rank_by_weighting = compiler(
            "rank_by_weighting", self._rank_by_weighting, out_shardings=replicated
        )

    def encode_catalogue(self, params: Any) -> Encoded:
        """Returns vectors_NxD for reading histories, and the index of all items."""
        parts = [self._encode(params, *piece) for piece in self.pieces]
        return self._join(params, parts, self.graph)

    def _apply(self, method: Callable[..., Any], params: Any, *args: Any) -> Any:
        return self.model.apply({"params": params}, *args, method=method)

    def _encode_piece(self, params: Any, catalogue: Any, items: Items) -> Any:
        return self._apply(Recommender.encode_items, params, catalogue, items)

    def _join_pieces(self, params: Any, parts: list[jax.Array], graph: Any) -> Any:
        vectors_NxD = jnp.concatenate(parts)[self.positions_N]
        candidates_NxD, history_NxD = self._apply(
            Recommender.propagate, params, vectors_NxD, graph
        )
        items_N = jnp.arange(self.num_items)
        index = self._apply(
            Recommender.item_candidates,
            params,
            candidates_NxD,
            items_N,
            jnp.asarray(self.group_N),
        )
        return history_NxD, make_index(*index)

    def _query(self, params: Any, vectors_NxD: jax.Array, batch: Queries) -> Any:
        history = batch.history_BxH, batch.mask_BxH, batch.times_BxH, batch.liked_BxH
        return self._apply(Recommender.user_queries, params, vectors_NxD, *history)

    def _rank_batch(self, params: Any, encoded: Encoded, batch: Queries) -> Ranked:
        vectors_NxD, index = encoded
        queries_BxD = self._query(params, vectors_NxD, batch)
        fused_BxN = None
        if batch.baseline_scores_BxMxN is not None:
            fused_BxN = self._apply(
                Recommender.fuse_scores, params, batch.baseline_scores_BxMxN
            )
        if self.model.seen_bias is not None:
            if fused_BxN is None:
                fused_BxN = jnp.zeros((len(queries_BxD), self.num_items))
            history = batch.history_BxH, batch.mask_BxH
            fused_BxN = self._apply(Recommender.bias_seen, params, fused_BxN, *history)
        return rank_queries(
            queries_BxD, index, batch, self.k, self.num_items, fused_BxN
        )

    def _rank_by_weighting(
        self, params: Any, encoded: Encoded, batch: Queries, weights_WxK: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        vectors_NxD, index = encoded
        queries_BxD = self._query(params, vectors_NxD, batch)
        scores_BxN = score_items(queries_BxD, index)[:, : self.num_items]
        added = []
        if batch.baseline_scores_BxMxN is not None:
            added.append(jnp.asarray(batch.baseline_scores_BxMxN))
        if self.model.event_bias is not None:
            # A bias of a group is the weight of a score that is 1 for its items.
            in_group_2xN = jnp.stack([jnp.asarray(self.group_N) == i for i in (0, 1)])
            shape = (len(scores_BxN), *in_group_2xN.shape)
            added.append(jnp.broadcast_to(in_group_2xN, shape).astype(jnp.float32))
        if self.model.seen_bias is not None:
            is_seen_BxN = mark_items(
                jnp.asarray(batch.history_BxH), batch.mask_BxH, self.num_items
            )
            added.append(is_seen_BxN[:, None].astype(jnp.float32))
        added_BxKxN = jnp.concatenate(added, axis=1)
        return rank_by_weighting(scores_BxN, added_BxKxN, weights_WxK, batch)
