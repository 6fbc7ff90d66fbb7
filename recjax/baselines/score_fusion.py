"""Score fusion: adds weighted scores of baselines to the scores of a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recjax.baselines import TEXT
from recjax.data.batching.types import Queries, Scorer

# Baselines with scores >= 0, which enter as logarithms; others enter unchanged.
LOG_SCORED = (
    "popularity",
    "recent_popularity",
    "transitions",
    "repeat_transitions",
    "item_knn",
)

AUTO_EASE_ITEMS = 15_000  # items up to which `auto_fusion` has EASE, of N x N weights


def auto_fusion(config: Any, num_items: int) -> tuple[str, ...]:
    """Returns the baselines that `head.fusion=("auto",)` chooses from.

    They differ in what they know: the order of events, common users, all pairs of
    items, and texts.
    """
    names = ["transitions" if config.eval.mask_seen else "repeat_transitions"]
    names.append("item_knn")
    if num_items <= AUTO_EASE_ITEMS:
        names.append("ease")
    if "text" in config.item_tower.sources:
        names.append(TEXT)
    return tuple(names)


class ScoreFusion:
    """Scores the fused baselines of a model, all at once.

    The scores of `LOG_SCORED` enter as logarithms, so the fused ranking is a product of
    experts (Hinton, 2002).

    `baselines` are pairs of name and fitted baseline. `floor` is added to a score
    before its logarithm, so that an item that was never observed is not ruled out.
    """

    def __init__(self, baselines: Sequence[tuple[str, Scorer]], floor: float):
        self.baselines = baselines
        self.floor = floor

    def score(self, queries: Queries) -> np.ndarray:
        """Returns baseline_scores_BxMxN: scores of M baselines, or their logarithms."""
        return np.stack(
            [self._score(queries, *each) for each in self.baselines], axis=1
        )

    def _score(self, queries: Queries, name: str, baseline: Scorer) -> np.ndarray:
        scores_BxN = np.asarray(baseline.score(queries), np.float32)
        if name not in LOG_SCORED:
            return scores_BxN
        return np.log(scores_BxN + np.float32(self.floor))
