"""Ranks the catalogue for every example of a split and keeps per-example metrics."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.data.batching.eval_batches import make_queries, sample_candidates
from recjax.data.batching.types import Queries, Scorer
from recjax.data.dataset import NO_SPLIT, Data, Examples
from recjax.data.padding import round_up
from recjax.evaluation.grid_search import Numbers, grid_search
from recjax.evaluation.metrics import (
    LIKE_AUC,
    MetricValues,
    like_auc_values,
    ranking_values,
)
from recjax.evaluation.model_scorer import Encoded, ModelScorer
from recjax.evaluation.ranking import Ranked, rank
from recjax.losses import learns_likes
from recjax.models.heads import EVENT_BIAS, FUSION_WEIGHTS, SEEN_BIAS, TUNED
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import replicate, shard_batch

MAX_SCORES = 2**24  # users x items ranked at a time: 64 MiB


@dataclass(frozen=True)
class Evaluation:
    """Per-example results of one split, in the order of its examples.

    Attributes:
      rank_R: rank of each target among its candidates, from 1; ties rank above it.
      top_RxK: best candidates, best first; -1 where there are fewer than K.
      vectors_NxD: item vectors that were ranked, on the devices; None if the scorer
        has no vectors.
    """

    values: MetricValues
    rank_R: np.ndarray
    target_score_R: np.ndarray
    top_RxK: np.ndarray
    vectors_NxD: jax.Array | None = None

    def mean(self, metric: str) -> float:
        """Returns the mean of one metric over the examples."""
        return float(self.values[metric].mean())


class Evaluator:
    """Evaluates models and other scorers on the examples of a split.

    Users are sharded over the data axis of the mesh.
    """

    def __init__(self, config: Any, data: Data, mesh: Mesh, compiler: Compiler):
        self.config = config
        self.data = data
        self.mesh = mesh
        self.compiler = compiler
        self._fusion: Scorer | None = None
        self._sampled_for: dict[int, np.ndarray] = {}  # by id() of a split of `data`
        replicated = compiler.replicated
        self._ranker = compiler("rank", self._rank_scores, out_shardings=replicated)

    @property
    def k(self) -> int:
        """Number of best candidates that are kept for each example."""
        return min(max(self.config.eval.ks), self.data.num_items)

    def queries(
        self, examples: Examples, *, by_length: bool = False
    ) -> Iterator[Queries]:
        """Yields the examples of a split in batches."""
        config = self.config
        # A large catalogue makes the batches smaller: their scores have to fit.
        size = min(config.eval.batch_size, max(MAX_SCORES // self.data.num_items, 1))
        return make_queries(
            examples,
            batch_size=round_up(size, self.mesh.shape["data"]),
            history_length=config.data.history_length,
            mask_seen=config.eval.mask_seen,
            by_length=by_length,
            sampled_RxC=self._sampled_candidates(examples),
            like=config.eval.like_threshold if config.user_tower.ratings else None,
            with_times=config.user_tower.time,
        )

    def by_baseline(self, baseline: Scorer, examples: Examples) -> Evaluation:
        """Evaluates any scorer, for example a fitted baseline."""

        def ranked(batch: Queries) -> Ranked:
            scores_BxN = np.ascontiguousarray(baseline.score(batch))
            return self._ranker(*shard_batch((scores_BxN, batch), self.mesh))

        pairs = ((batch, ranked(batch)) for batch in self.queries(examples))
        return self._collect(examples, pairs)

    def by_model(
        self, scorer: ModelScorer, params: Any, *splits: Examples
    ) -> list[Evaluation]:
        """Evaluates parameters: encodes the catalogue once, then ranks each split."""
        encoded = scorer.encode_catalogue(params)

        def ranked(examples: Examples) -> Iterator[tuple[Queries, Ranked]]:
            for batch in self.queries(examples, by_length=True):
                placed = self._place_with_fusion(batch)
                yield batch, scorer.rank(params, encoded, placed)

        vectors_NxD = encoded[1].candidates_MxD[: self.data.num_items]
        return [self._collect(x, ranked(x), vectors_NxD) for x in splits]

    def set_score_fusion(self, fusion: Scorer) -> None:
        """Adds the baseline_scores_BxMxN of a scorer to later rankings by a model."""
        self._fusion = fusion

    def tune_scores(
        self,
        scorer: ModelScorer,
        params: FlatParams,
        paths: Collection[str],
        examples: Examples,
        value_of: Callable[[MetricValues], float],
    ) -> tuple[FlatParams, MetricValues]:
        """Chooses the weights of score fusion, and the biases of groups of items.

        Each is the best that `grid_search` finds, with the others as they are in
        `params`. Without a split, `config.head` has the values.

        Args:
          scorer: ranks the examples.
          params: the parameters by path.
          paths: those that are chosen, some of `TUNED`; others stay as they are.
          examples: the examples.
          value_of: metrics of the examples in order -> what is maximised.

        Returns:
          The chosen parameters by path, and the metrics of the examples with them.
        """
        head = self.config.head
        tuned = {path: np.asarray(params[path]) for path in TUNED if path in params}
        grids = {
            FUSION_WEIGHTS: head.fusion_weights,
            EVENT_BIAS: head.event_bias,
            SEEN_BIAS: head.seen_bias,
        }
        encoded = scorer.encode_catalogue(unflatten_params(without_event_bias(params)))
        values: MetricValues = {}

        def evaluate(path: str, options: Sequence[Numbers]) -> list[MetricValues]:
            trials = [{**tuned, path: np.array(x, np.float32)} for x in options]
            weights_WxK = np.stack([np.concatenate([*x.values()]) for x in trials])
            return self._rank_by_weighting(
                scorer, params, encoded, examples, weights_WxK
            )

        for path in [path for path in tuned if path in paths]:
            grid, start = tuple(grids[path]), tuple(tuned[path].tolist())
            # Without a split there is nothing to choose them by.
            if self.config.data.split == NO_SPLIT:
                chosen, (values,) = grid, evaluate(path, [grid])
            else:
                chosen, values = grid_search(
                    functools.partial(evaluate, path), value_of, grid, start
                )
            tuned[path] = np.array(chosen, np.float32)
        return {path: tuned[path] for path in paths}, values

    def _rank_by_weighting(
        self,
        scorer: ModelScorer,
        params: FlatParams,
        encoded: Encoded,
        examples: Examples,
        weights_WxK: np.ndarray,
    ) -> list[MetricValues]:
        """Ranks the examples for W weightings of fused baselines and event groups."""
        placed_WxK = replicate(weights_WxK, self.mesh)
        nested, rows, parts = unflatten_params(params), [], []
        for batch in self.queries(examples, by_length=True):
            rows.append(batch.examples_B)
            placed = self._place_with_fusion(batch)
            parts.append(scorer.rank_by_weighting(nested, encoded, placed, placed_WxK))
        # Above, equal and below.
        counts_3xWxR = np.concatenate(parts, axis=2)[:, :, example_order(rows)]
        above_WxR, equal_WxR, below_WxR = counts_3xWxR
        return [
            ranking_values(above_R, equal_R, below_R, self.config.eval.ks)
            for above_R, equal_R, below_R in zip(
                above_WxR, equal_WxR, below_WxR, strict=True
            )
        ]

    def _place_with_fusion(self, batch: Queries) -> Queries:
        """Puts queries on the devices, with the scores of the fused baselines."""
        if self._fusion is not None:
            scores_BxMxN = np.asarray(self._fusion.score(batch))
            batch = batch._replace(baseline_scores_BxMxN=scores_BxMxN)
        return shard_batch(batch, self.mesh)

    def _rank_scores(self, scores_BxN: jax.Array, batch: Queries) -> Ranked:
        return rank(
            scores_BxN, batch.seen_BxS, batch.targets_B, self.k, batch.sampled_BxC
        )

    def _sampled_candidates(self, examples: Examples) -> np.ndarray | None:
        """Returns the sampled candidates of a split, the same for every scorer."""
        number = self.config.eval.candidates
        if not number:
            return None
        if id(examples) not in self._sampled_for:
            seed = self.config.data.split_seed
            mask_seen = self.config.eval.mask_seen
            self._sampled_for[id(examples)] = sample_candidates(
                examples, self.data.num_items, number, mask_seen=mask_seen, seed=seed
            )
        return self._sampled_for[id(examples)]

    def _collect(
        self,
        split: Examples,
        pairs: Iterable[tuple[Queries, Ranked]],
        vectors_NxD: jax.Array | None = None,
    ) -> Evaluation:
        """Joins ranked batches in the order of the examples, without padding."""
        # All batches are dispatched before the first result is awaited.
        examples, parts = zip(
            *((batch.examples_B, ranked) for batch, ranked in pairs), strict=True
        )
        order_R = example_order(examples)
        above_R, equal_R, below_R, score_R, top_RxK = (
            np.concatenate([np.asarray(part) for part in column])[order_R]
            for column in zip(*parts, strict=True)
        )
        values = ranking_values(above_R, equal_R, below_R, self.config.eval.ks)
        if learns_likes(self.config.loss):
            liked_R = split.ratings_R >= self.config.eval.like_threshold
            values[LIKE_AUC] = like_auc_values(score_R, liked_R)
        return Evaluation(values, above_R + equal_R + 1, score_R, top_RxK, vectors_NxD)


def example_order(examples: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the positions, in concatenated batches, of the examples in order.

    Args:
      examples: examples_B of each batch; -1 is padding.
    """
    examples_R = np.concatenate(examples)
    return np.argsort(examples_R, kind="stable")[(examples_R < 0).sum() :]


def without_event_bias(params: FlatParams) -> FlatParams:
    """Returns the parameters with biases of 0 for items with few training events."""
    if EVENT_BIAS not in params:
        return params
    return {**params, EVENT_BIAS: jnp.zeros_like(params[EVENT_BIAS])}
