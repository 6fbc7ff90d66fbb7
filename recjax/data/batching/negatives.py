"""Negative sampling: the items that a target competes with, and their weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class ItemSampler(NamedTuple):
    """One way to sample items for a batch.

    Attributes:
      sample: targets of the batch -> sampled items, with repetitions.
      expected_count: items, number of windows in the batch -> how often each item is
        expected in the sample.
    """

    sample: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    expected_count: Callable[[np.ndarray, int], np.ndarray]


def in_batch(target_freq_N: np.ndarray, allowed: np.ndarray, size: int) -> ItemSampler:
    """Uses the targets of the batch itself."""
    # The expectation over random batches, not the count in this batch.
    return ItemSampler(
        lambda targets, rng: targets,
        lambda items, num_windows: target_freq_N[items] * num_windows,
    )


def uniform(target_freq_N: np.ndarray, allowed: np.ndarray, size: int) -> ItemSampler:
    """Samples `size` of the allowed items with equal probability, with replacement."""
    sampling_prob_N = np.zeros(len(target_freq_N))
    sampling_prob_N[allowed] = 1 / len(allowed)
    return ItemSampler(
        lambda targets, rng: allowed[rng.integers(len(allowed), size=size)],
        lambda items, num_windows: sampling_prob_N[items] * size,
    )


def by_popularity(
    target_freq_N: np.ndarray, allowed: np.ndarray, size: int
) -> ItemSampler:
    """Samples `size` items in proportion to how often they are targets."""
    # Held-out items are never training targets, so their probability is zero.
    sampling_prob_N = target_freq_N / target_freq_N.sum()
    # Inverse transform sampling. Without the last bound, rounding in the sum cannot
    # yield an index beyond the catalogue.
    bounds = np.cumsum(sampling_prob_N[:-1])
    return ItemSampler(
        lambda targets, rng: np.searchsorted(bounds, rng.random(size), "right"),
        lambda items, num_windows: sampling_prob_N[items] * size,
    )


@dataclass(frozen=True)
class NegativeStrategy:
    """The items that the targets of a batch compete with.

    Attributes:
      name: its key in `NEGATIVES`.
      samplers: factories of the samplers whose items are pooled. They receive
        target_freq_N (mean number of times that an item is a target of a window), the
        items that may be sampled, and the size of the sample.
      needs_target_freq: whether a sampler reads target_freq_N.
      needs_whole_catalogue: whether every step encodes all items, which are the
        candidates; `Batch.items` is None.
      is_stale: whether the candidates are all items, with vectors that are encoded
        every `loss.refresh_steps` steps and constant in between. A step encodes only
        the items of its own batch.
    """

    name: str
    samplers: tuple[Callable[[np.ndarray, np.ndarray, int], ItemSampler], ...] = ()
    needs_target_freq: bool = False
    needs_whole_catalogue: bool = False
    is_stale: bool = False


@dataclass(frozen=True)
class NegativeSampler:
    """Pools the items of several samplers and weights them."""

    samplers: list[ItemSampler]
    logq: bool  # whether to weight candidates by 1 / expected count

    def sample(
        self, targets: np.ndarray, num_windows: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the distinct negatives of a batch, and their weights."""
        pools = [sampler.sample(targets, rng) for sampler in self.samplers]
        # The empty array serves strategies without samplers, which have no negatives.
        pooled = np.concatenate([np.zeros(0, np.int64), *pools])
        items, counts = np.unique(pooled, return_counts=True)
        if not self.logq:
            return items, counts.astype(np.float64)
        # The weighted sum over candidates is then an unbiased estimate of the sum over
        # the catalogue (Yi et al., Sampling-Bias-Corrected Neural Modeling, RecSys
        # 2019). An item can come from any sampler, so its expected counts add up.
        expected = sum(s.expected_count(items, num_windows) for s in self.samplers)
        return items, counts / expected


NEGATIVES = {
    strategy.name: strategy
    for strategy in (
        NegativeStrategy("all", needs_whole_catalogue=True),
        NegativeStrategy("stale", is_stale=True),
        NegativeStrategy("in_batch", (in_batch,), needs_target_freq=True),
        NegativeStrategy("uniform", (uniform,)),
        NegativeStrategy("popularity", (by_popularity,), needs_target_freq=True),
        # Yang et al., Mixed Negative Sampling, WWW 2020.
        NegativeStrategy("mixed", (in_batch, uniform), needs_target_freq=True),
    )
}
