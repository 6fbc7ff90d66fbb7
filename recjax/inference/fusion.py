"""Scores of the fused baselines of a saved model."""

from collections.abc import Mapping, Sequence

import numpy as np

from recjax.baselines.score_fusion import LOG_SCORED, ScoreFusion
from recjax.data.batching.types import Queries, Scorer
from recjax.data.padding import pad_left


class Fusion:
    """Scores the items of a training, and those that were added to them.

    Args:
      baselines: the fitted baselines, by name.
      floor: see `ScoreFusion`.
      num_trained: number of items that the baselines know, the first ones.
      history_length: newest items of a history that the baselines read.
    """

    def __init__(
        self,
        baselines: Mapping[str, Scorer],
        floor: float,
        num_trained: int,
        history_length: int,
    ):
        self._scorer = ScoreFusion(list(baselines.items()), floor)
        self._num_trained = num_trained
        self._history_length = history_length
        # An item that was never observed has no evidence, which is a score of 0.
        unseen = [np.log(floor) if name in LOG_SCORED else 0.0 for name in baselines]
        self._unseen_M = np.array(unseen, np.float32)

    def score(
        self, histories: Sequence[np.ndarray], num_queries: int, num_items: int
    ) -> np.ndarray:
        """Returns scores_BxMxN of M baselines.

        Args:
          histories: item indices of each history, oldest first.
          num_queries: B, at least the number of histories.
          num_items: N, at least the number of trained items.
        """
        length = self._history_length
        rows = [x[x < self._num_trained][-length:] for x in histories]
        history_BxH, mask_BxH = pad_left(rows, (len(rows), length))
        none_B = np.zeros(len(rows), np.int32)
        queries = Queries(history_BxH, mask_BxH, none_B[:, None] - 1, none_B, none_B)
        shape = num_queries, len(self._unseen_M), num_items
        scores_BxMxN = np.empty(shape, np.float32)
        scores_BxMxN[:] = self._unseen_M[None, :, None]
        scores_BxMxN[: len(rows), :, : self._num_trained] = self._scorer.score(queries)
        return scores_BxMxN
