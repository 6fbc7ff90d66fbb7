"""Baselines' scores beside the model's: what counting knows, and what texts say."""

from collections.abc import Sequence

import numpy as np

from recjax.data.batching.types import Baseline, Queries

# Scores that are chances or counts; all others are added as they are.
LOG_SCORED = (
    "popularity",
    "recent_popularity",
    "transitions",
    "repeat_transitions",
    "item_knn",
)


class ScoreFusion:
    """Fitted baselines, each a term of the ranking.

    With the logarithms of chances the sum is that of a product of experts (Hinton,
    2002).

    Args:
      baselines: by name, fitted on the training rows.
      floor: added to a chance before its logarithm is taken, so that what never
        happened is not ruled out.
    """

    def __init__(self, baselines: Sequence[tuple[str, Baseline]], floor: float):
        self.baselines, self.floor = baselines, floor

    def score(self, queries: Queries) -> np.ndarray:
        """baseline_scores_BxMxN: every baseline's scores or their logarithms."""
        return np.stack(
            [self._score(queries, *each) for each in self.baselines], axis=1
        )

    def _score(self, queries: Queries, name: str, baseline: Baseline) -> np.ndarray:
        scores_BxN = np.asarray(baseline.score(queries), np.float32)
        if name not in LOG_SCORED:
            return scores_BxN
        return np.log(scores_BxN + np.float32(self.floor))
