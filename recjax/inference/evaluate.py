"""Ranks the targets of histories among all items, and computes metrics of the ranks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recjax.common.intervals import Interval
from recjax.data.padding import pad_to
from recjax.evaluation.metrics import ranking_values, with_intervals
from recjax.evaluation.ranking import rank
from recjax.inference.inputs import as_list, at_least_one
from recjax.inference.lists import CHUNK, chunks


def count_candidates(
    score: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray],
    histories: Sequence[np.ndarray],
    times: Sequence[np.ndarray],
    targets_R: np.ndarray,
    mask_seen: bool,
) -> np.ndarray:
    """Counts the candidates above, equal to and below each target: counts_Rx3.

    Args:
      score: returns the scores_BxN of B histories, given their items and times.
      histories: item indices of R histories, oldest first.
      times: of their events in seconds, as floats; NaN where unknown.
      targets_R: the item index that follows each history.
      mask_seen: whether items of the history are no candidates; a target always is.
    """
    counts = []
    both = zip(chunks(histories), chunks(times), strict=True)
    for start, (part, own) in enumerate(both):
        targets_B = targets_R[start * CHUNK : start * CHUNK + len(part)]
        seen = [
            np.setdiff1d(history if mask_seen else history[:0], target)
            for history, target in zip(part, targets_B, strict=True)
        ]
        width = max(1, *map(len, seen))
        seen_BxS = np.stack([pad_to(items, width) for items in seen])
        found = rank(score(part, own), seen_BxS, targets_B, 1)
        counts.append(np.stack(found[:3], axis=1))
    return np.concatenate(counts)


def cut_offs(ks: Any) -> list[int]:
    """Returns the cut-offs of metrics.

    Raises:
      UserError: not a list of whole numbers from 1.
    """
    return [at_least_one(k, "ks") for k in as_list(ks, "ks")]


def metrics(counts_Rx3: np.ndarray, ks: Sequence[int]) -> dict[str, Interval]:
    """Returns HR, NDCG and MRR at the cut-offs and AUC, with 95% intervals."""
    above_R, equal_R, below_R = counts_Rx3.T
    values = ranking_values(above_R, equal_R, below_R, ks)
    return with_intervals(
        values, np.arange(len(counts_Rx3)), bootstrap_samples=1000, seed=0
    )
