"""Uniformly random scores: the chance level of every metric."""

import numpy as np

from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples


class Random:
    """Draws new scores for every batch from one seeded stream.

    Args:
      seed: seed of the stream.
    """

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def fit(self, rows: Examples, num_items: int) -> None:
        """Stores the size of the catalogue."""
        del rows
        self.num_items = num_items

    def score(self, queries: Queries) -> np.ndarray:
        """Returns scores_BxN."""
        return self.rng.random((len(queries.targets_B), self.num_items), np.float32)
