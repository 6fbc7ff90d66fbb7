"""What a target competes with: the items drawn for a batch, and their weights."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class ItemSampler(Protocol):
    """One way to choose items for a batch.

    Args:
      target_freq_N: how often an item is a target of a window.
      allowed: catalogue rows that may be drawn.
      size: how many are drawn, with replacement.
    """

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int): ...

    def rows(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Catalogue rows for a batch with these targets."""

    def expected(self, rows: np.ndarray, num_windows: int) -> np.ndarray:
        """How often each row is expected among them."""


class InBatch:
    """The batch's own targets."""

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int):
        del allowed, size
        self.target_freq_N = target_freq_N

    def rows(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The targets, each as often as it is one."""
        del rng
        return targets

    def expected(self, rows: np.ndarray, num_windows: int) -> np.ndarray:
        """By how often windows have them as targets."""
        return self.target_freq_N[rows] * num_windows


class Uniform:
    """Items drawn with equal chances."""

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int):
        self.allowed, self.size = allowed, size
        self.sampling_prob_N = np.zeros(len(target_freq_N))
        self.sampling_prob_N[allowed] = 1 / len(allowed)

    def rows(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws with replacement."""
        del targets
        return self.allowed[rng.integers(len(self.allowed), size=self.size)]

    def expected(self, rows: np.ndarray, num_windows: int) -> np.ndarray:
        """The same for every item that may be drawn."""
        del num_windows
        return self.sampling_prob_N[rows] * self.size


class ByPopularity:
    """Items drawn with chances as they are targets."""

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int):
        del allowed
        self.sampling_prob_N, self.size = target_freq_N / target_freq_N.sum(), size
        self._below_N = np.cumsum(self.sampling_prob_N[:-1])

    def rows(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws with replacement."""
        del targets
        return np.searchsorted(self._below_N, rng.random(self.size), "right")

    def expected(self, rows: np.ndarray, num_windows: int) -> np.ndarray:
        """In proportion to the chances."""
        del num_windows
        return self.sampling_prob_N[rows] * self.size


# Mixed: Yang et al., Mixed Negative Sampling, 2020.
NEGATIVES: dict[str, Sequence[type[ItemSampler]]] = {
    "all": (),
    "stale": (),
    "in_batch": (InBatch,),
    "uniform": (Uniform,),
    "popularity": (ByPopularity,),
    "mixed": (InBatch, Uniform),
}


class NegativeSampler:
    """The draws that a name of `NEGATIVES` stands for, together.

    Args:
      name: of `NEGATIVES`.
      target_freq_N: how often an item is a target of a window.
      allowed: catalogue rows that may be drawn.
      size: so many are drawn, with replacement, where items are drawn.
      logq: whether a candidate weighs 1 / expected count.
    """

    def __init__(
        self,
        name: str,
        target_freq_N: np.ndarray,
        allowed: np.ndarray,
        size: int,
        *,
        logq: bool,
    ):
        self.draws = [draw(target_freq_N, allowed, size) for draw in NEGATIVES[name]]
        self.logq = logq

    def draw(
        self, targets: np.ndarray, num_windows: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A batch's negatives, each once, and their weights: count / expected."""
        each = [draw.rows(targets, rng) for draw in self.draws]
        drawn = np.concatenate([np.zeros(0, np.int64), *each])
        rows, counts = np.unique(drawn, return_counts=True)
        if not self.logq:
            return rows, counts.astype(np.float64)
        expected = sum(draw.expected(rows, num_windows) for draw in self.draws)
        return rows, counts / expected
