"""A baseline's scores beside the model's: what counting knows and text does not."""

from typing import Any

import numpy as np

from recjax.baselines import BASELINES
from recjax.data.queries import Queries
from recjax.data.rows import Data

FLOOR = 1e-9  # of a score whose logarithm is taken
POSITIVE = ("popularity", "recent_popularity", "transitions", "item_knn")  # or zero


class Memory:
    """A baseline, fitted on the training rows, as a term of the ranking.

    With the logarithm of a baseline that scores by chances the sum is that of a product
    of experts (Hinton, 2002).

    Args:
      config: the whole config; `head` names the baseline.
      data: whose training rows are remembered.
    """

    def __init__(self, config: Any, data: Data):
        self.log = config.head.memory_log
        self.baseline = BASELINES[config.head.memory](config.seed)
        self.baseline.fit(data.train, data.num_items)

    def score(self, queries: Queries) -> np.ndarray:
        """memory_BxN, finite: the baseline's scores or their logarithms."""
        scores_BxN = np.asarray(self.baseline.score(queries), np.float32)
        return np.log(np.maximum(scores_BxN, FLOOR)) if self.log else scores_BxN
