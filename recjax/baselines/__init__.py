"""Recommenders without a gradient, behind one `fit` and `score` interface."""

from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp
import numpy as np

from recjax.baselines.popularity import Popularity
from recjax.baselines.random import Random
from recjax.data.queries import Queries
from recjax.data.rows import Rows

__all__ = ["BASELINES", "Baseline", "Popularity", "Random"]


class Baseline(Protocol):
    """What every baseline offers."""

    def fit(self, rows: Rows, num_items: int) -> None:
        """Learns from the training rows."""

    def score(self, queries: Queries) -> np.ndarray | jnp.ndarray:
        """scores_BxN of a batch."""


BASELINES: dict[str, Callable[[int], Baseline]] = {
    "random": Random,
    "popularity": Popularity,
}
