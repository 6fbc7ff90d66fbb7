"""Encode the catalogue once, rank it for every user, keep per-user values."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from recjax.baselines.score_fusion import ScoreFusion
from recjax.data.batching.eval_batches import make_queries, sample_candidates
from recjax.data.batching.types import Baseline, Queries
from recjax.data.dataset import Data, Examples
from recjax.data.padding import round_up
from recjax.evaluation.metrics import (
    MetricValues,
    fit_platt,
    ranking_values,
    rating_report,
)
from recjax.evaluation.model_scorer import ModelScorer
from recjax.evaluation.ranking import Ranked, rank, rank_queries
from recjax.retrieval.index import Index, make_index
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import batch_sharding, place, replicated

MAX_SCORES = 2**24  # users x items at a time: 64 MiB


@dataclass(frozen=True)
class Evaluation:
    """Per-row results of one split, in the order of its rows.

    Attributes:
      values: `{metric: values_R}`.
      rank_R: each target's place among its candidates, from 1, behind its equals.
      target_score_R: the model's score of each target.
      top_RxK: the best candidates; -1 where there are fewer.
      vectors_NxD: of the items as they are ranked, on the devices, where there are any.
    """

    values: MetricValues
    rank_R: np.ndarray
    target_score_R: np.ndarray
    top_RxK: np.ndarray
    vectors_NxD: jax.Array | None = None

    def mean(self, metric: str) -> float:
        """Mean of one metric over the rows."""
        return float(self.values[metric].mean())


class Evaluator:
    """Ranks the rows of a split by any scorer.

    Args:
      config: the whole config.
      data: the split data set.
      mesh: users are spread over its data axis.
      compiler: of the run.
    """

    def __init__(self, config: Any, data: Data, mesh: Mesh, compiler: Compiler):
        self.config, self.data, self.mesh = config, data, mesh
        self.compiler = compiler
        self._fusion: ScoreFusion | None = None
        self._sampled_for: dict[int, np.ndarray] = {}  # by id of a split of `data`
        self._ranker = compiler(
            "rank", self._rank_scores, out_shardings=compiler.everywhere
        )

    def queries(self, rows: Examples, *, by_length: bool = False) -> Iterator[Queries]:
        """The split's rows in batches."""
        c = self.config
        size = min(c.eval.batch_size, max(MAX_SCORES // self.data.num_items, 1))
        return make_queries(
            rows,
            batch_size=round_up(size, self.mesh.shape["data"]),
            history_length=c.data.history_length,
            mask_seen=c.eval.mask_seen,
            by_length=by_length,
            sampled_RxC=self._drawn(rows),
        )

    def shard_batch(self, tree: Any) -> Any:
        """Onto the devices, users over the data axis."""
        return place(tree, batch_sharding(self.mesh, tree))

    def replicate(self, tree: Any) -> Any:
        """Onto every device."""
        return place(tree, replicated(self.mesh))

    def by_baseline(self, baseline: Baseline, rows: Examples) -> Evaluation:
        """Evaluates a fitted baseline."""

        def ranked(q: Queries) -> Ranked:
            scores = np.ascontiguousarray(baseline.score(q))
            return self._ranker(self.shard_batch(scores), self.shard_batch(q))

        return self._collect((q, ranked(q)) for q in self.queries(rows))

    def _drawn(self, rows: Examples) -> np.ndarray | None:
        """Drawn candidates of a split, the same for every scorer."""
        e, c = self.config.eval, self.config.data
        if not e.candidates:
            return None
        if id(rows) not in self._sampled_for:
            self._sampled_for[id(rows)] = sample_candidates(
                rows,
                self.data.num_items,
                e.candidates,
                mask_seen=e.mask_seen,
                seed=c.split_seed,
            )
        return self._sampled_for[id(rows)]

    def by_text(self, vectors_NxE: jax.Array, rows: Examples) -> Evaluation:
        """Evaluates text vectors as they are.

        A user is the mean of the history's unit vectors; scores are cosines.
        """

        def unit(x_xE: jax.Array) -> jax.Array:
            norm = jnp.linalg.norm(x_xE, axis=1, keepdims=True)
            return x_xE / jnp.maximum(norm, 1e-9)

        def ranked(index: Index, q: Queries) -> Ranked:
            history_BxHxE = index.candidates_MxD[q.history_BxH]
            mask_BxH = q.mask_BxH.astype(jnp.float32)
            users_BxE = jnp.einsum("bhe,bh->be", history_BxHxE, mask_BxH)
            num_items = self.data.num_items
            return rank_queries(unit(users_BxE), index, q, self.k, num_items)

        unit_NxE = unit(vectors_NxE.astype(jnp.float32))
        index = make_index(unit_NxE, jnp.zeros(len(unit_NxE)))
        everywhere = self.compiler.everywhere
        run = self.compiler("rank by text", ranked, out_shardings=everywhere)
        pairs = ((q, run(index, self.shard_batch(q))) for q in self.queries(rows))
        return self._collect(pairs, unit_NxE)

    def by_model(
        self, scorer: ModelScorer, params: Any, *splits: Examples
    ) -> list[Evaluation]:
        """Evaluates a parameter state: encodes the catalogue once, ranks each split."""
        encoded = scorer.encode_catalogue(params)

        def ranked(rows: Examples) -> Iterator[tuple[Queries, Ranked]]:
            for q in self.queries(rows, by_length=True):
                yield q, scorer.rank(params, encoded, self._place_with_fusion(q))

        vectors_NxD = encoded[1].candidates_MxD[: self.data.num_items]
        return [self._collect(ranked(rows), vectors_NxD) for rows in splits]

    def tune_fusion_weights(
        self, scorer: ModelScorer, params: Any, rows: Examples, metric: str
    ) -> tuple[np.ndarray, MetricValues]:
        """weights_M of the memory that do best of all combinations, and how they do.

        Args:
          scorer: of a model with a memory.
          params: its parameters, whatever their weights are.
          rows: of the validation.
          metric: to compare by; of equal ones the first combination wins.
        """
        each = self.config.head.fusion_weights
        every = itertools.product(each, repeat=len(self.config.head.fusion))
        weights_WxM = np.array(list(every), np.float32)
        encoded, placed_WxM = (
            scorer.encode_catalogue(params),
            self.replicate(weights_WxM),
        )
        asks, parts = [], []
        for q in self.queries(rows, by_length=True):
            asks.append(q.examples_B >= 0)
            placed = self._place_with_fusion(q)
            parts.append(scorer.compare(params, encoded, placed, placed_WxM))
        asks_R = np.concatenate(asks)
        above_WxR, equal_WxR, below_WxR = (
            np.concatenate([np.asarray(x) for x in column], axis=1)[:, asks_R]
            for column in zip(*parts, strict=True)
        )

        def values(w: int) -> MetricValues:
            counts = above_WxR[w], equal_WxR[w], below_WxR[w]
            return ranking_values(*counts, self.config.eval.ks)

        means = [values(w)[metric].mean() for w in range(len(weights_WxM))]
        best = int(np.argmax(means))
        return weights_WxM[best], values(best)

    def set_score_fusion(self, fusion: ScoreFusion) -> None:
        """Adds the memory to every ranking by a model from here on."""
        self._fusion = fusion

    def _place_with_fusion(self, q: Queries) -> Queries:
        """Queries onto the devices, with what the memory says of them."""
        if self._fusion is not None:
            q = q._replace(baseline_scores_BxMxN=self._fusion.score(q))
        placed: Queries = self.shard_batch(q)
        return placed

    def _rank_scores(self, scores_BxN: jax.Array, q: Queries) -> Ranked:
        return rank(scores_BxN, q.seen_BxS, q.targets_B, self.k, q.sampled_BxC)

    @property
    def k(self) -> int:
        """How many of the best are kept."""
        return min(max(self.config.eval.ks), self.data.num_items)

    def _collect(
        self,
        pairs: Iterable[tuple[Queries, Ranked]],
        vectors_NxD: jax.Array | None = None,
    ) -> Evaluation:
        # All batches are started before the first is waited for.
        rows, parts = zip(*((q.examples_B, ranked) for q, ranked in pairs), strict=True)
        rows_R = np.concatenate(rows)
        order_R = np.argsort(rows_R, kind="stable")[(rows_R < 0).sum() :]
        above, equal, below, score, top = (
            np.concatenate([np.asarray(x) for x in column])[order_R]
            for column in zip(*parts, strict=True)
        )
        values = ranking_values(above, equal, below, self.config.eval.ks)
        return Evaluation(values, above + equal + 1, score, top, vectors_NxD)


def rating_results(
    config: Any, data: Data, valid: Evaluation, test: Evaluation
) -> dict[str, float] | None:
    """Like or not, for the test events, calibrated on the validation events.

    A rating of at least `eval.like_threshold` is a like (1), any other is none (0).
    None where the data has no ratings, or one of the two only one class.
    """
    if not config.data.rating or not config.eval.like_threshold:
        return None
    labels, scores = [], []
    for rows, evaluation in ((data.valid, valid), (data.test, test)):
        labels.append((rows.ratings_R >= config.eval.like_threshold).astype(np.float64))
        scores.append(evaluation.target_score_R.astype(np.float64))
    if any(len(np.unique(label_R)) < 2 for label_R in labels):
        return None
    platt = fit_platt(scores[0], labels[0])
    share = float(labels[0].mean())
    return dict(rating_report(scores[1], labels[1], platt, share))
