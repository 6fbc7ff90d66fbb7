"""Popularity: the most frequent training items, the same for all users."""

import numpy as np

from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples


class Popularity:
    """Scores an item by its number of training events.

    Args:
      seed: unused.
    """

    def __init__(self, seed: int):
        del seed

    def fit(self, rows: Examples, num_items: int) -> None:
        """Counts events."""
        counts_N = np.bincount(rows.events(), minlength=num_items)
        self.counts_N = counts_N.astype(np.float32)

    def score(self, queries: Queries) -> np.ndarray:
        """Returns scores_BxN, a read-only view of one row."""
        shape = (len(queries.targets_B), len(self.counts_N))
        return np.broadcast_to(self.counts_N, shape)
