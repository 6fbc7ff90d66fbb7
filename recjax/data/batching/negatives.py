"""Negative sampling: the items that a target competes with, and their weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np


class ItemSampler(Protocol):
    """One way to sample items for a batch.

    Args:
      target_freq_N: mean number of times that an item is a target of a window.
      allowed: item indices that may be sampled.
      size: number of items to sample, with replacement.
    """

    needs_target_freq: ClassVar[bool]

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int): ...

    def sample(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Item indices for a batch with these targets, with repetitions."""

    def expected_count(self, items: np.ndarray, num_windows: int) -> np.ndarray:
        """How often each of the items is expected in a sample."""


class InBatch:
    """Uses the targets of the batch itself."""

    needs_target_freq: ClassVar[bool] = True

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int):
        del allowed, size
        self.target_freq_N = target_freq_N

    def sample(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The targets, with repetitions."""
        del rng
        return targets

    def expected_count(self, items: np.ndarray, num_windows: int) -> np.ndarray:
        """Proportional to how often windows have the items as targets."""
        # The expectation over which windows a batch has, not the count in this batch.
        return self.target_freq_N[items] * num_windows


class Uniform:
    """Samples all allowed items with equal probability."""

    needs_target_freq: ClassVar[bool] = False

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int):
        self.allowed = allowed
        self.size = size
        self.sampling_prob_N = np.zeros(len(target_freq_N))
        self.sampling_prob_N[allowed] = 1 / len(allowed)

    def sample(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Independent draws from the allowed items."""
        del targets
        return self.allowed[rng.integers(len(self.allowed), size=self.size)]

    def expected_count(self, items: np.ndarray, num_windows: int) -> np.ndarray:
        """The same for every allowed item."""
        del num_windows
        return self.sampling_prob_N[items] * self.size


class ByPopularity:
    """Samples items in proportion to how often they are targets."""

    needs_target_freq: ClassVar[bool] = True

    def __init__(self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int):
        # Held-out items are never training targets, so their probability is zero.
        del allowed
        self.size = size
        self.sampling_prob_N = target_freq_N / target_freq_N.sum()
        self._cumulative_N = np.cumsum(self.sampling_prob_N[:-1])

    def sample(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Independent draws in proportion to popularity."""
        del targets
        # Inverse transform sampling; the last bound is left out, so that rounding in
        # the sum cannot yield an index beyond the catalogue.
        return np.searchsorted(self._cumulative_N, rng.random(self.size), "right")

    def expected_count(self, items: np.ndarray, num_windows: int) -> np.ndarray:
        """Proportional to the sampling probability."""
        del num_windows
        return self.sampling_prob_N[items] * self.size


@dataclass(frozen=True)
class NegativeStrategy:
    """What the targets of a batch compete with.

    Attributes:
      name: key in `NEGATIVES`, as written in `loss.negatives`.
      samplers: what the sampled negatives of a batch are pooled from.
      needs_whole_catalogue: every step encodes all items; `Batch.items` is None.
      is_stale: candidates are all items too, but their vectors are encoded every
        `loss.refresh_steps` steps and constant in between. A step encodes only the
        items of its own batch.
    """

    name: str
    samplers: Sequence[type[ItemSampler]] = ()
    needs_whole_catalogue: bool = False
    is_stale: bool = False

    @property
    def needs_target_freq(self) -> bool:
        """Whether a sampler reads how often each item is a target."""
        return any(sampler.needs_target_freq for sampler in self.samplers)

    def make_sampler(
        self, target_freq_N: np.ndarray, allowed: np.ndarray, size: int, *, logq: bool
    ) -> "NegativeSampler":
        """Returns the strategy's sampler; see `ItemSampler` and `NegativeSampler`."""
        samplers = [each(target_freq_N, allowed, size) for each in self.samplers]
        return NegativeSampler(samplers, logq=logq)


class NegativeSampler:
    """Pools the items of several samplers and weights them.

    Args:
      samplers: none where the candidates are the whole catalogue.
      logq: whether to weight candidates by 1 / expected count. This makes the
        weighted sum over candidates an unbiased estimate of the sum over the
        catalogue (Yi et al., Sampling-Bias-Corrected Neural Modeling, RecSys 2019).
    """

    def __init__(self, samplers: Sequence[ItemSampler], *, logq: bool):
        self.samplers = samplers
        self.logq = logq

    def sample(
        self, targets: np.ndarray, num_windows: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distinct negatives of a batch, and their weights: count / expected count."""
        pools = [sampler.sample(targets, rng) for sampler in self.samplers]
        # The empty array serves strategies without samplers, which have no negatives.
        pooled = np.concatenate([np.zeros(0, np.int64), *pools])
        items, counts = np.unique(pooled, return_counts=True)
        if not self.logq:
            return items, counts.astype(np.float64)
        # An item can come from any sampler, so its expected counts add up.
        expected = sum(s.expected_count(items, num_windows) for s in self.samplers)
        return items, counts / expected


NEGATIVES = {
    strategy.name: strategy
    for strategy in (
        NegativeStrategy("all", needs_whole_catalogue=True),
        NegativeStrategy("stale", is_stale=True),
        NegativeStrategy("in_batch", (InBatch,)),
        NegativeStrategy("uniform", (Uniform,)),
        NegativeStrategy("popularity", (ByPopularity,)),
        # Yang et al., Mixed Negative Sampling, WWW 2020.
        NegativeStrategy("mixed", (InBatch, Uniform)),
    )
}
