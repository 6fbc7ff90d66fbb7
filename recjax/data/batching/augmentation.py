"""Augmentation of training windows: crop, mask, reorder and substitute.

The transformations are those of Xie et al. (CL4SRec, 2022) and Liu et al. (CoSeRec,
2021), who compare two changed views of a history. Here the user tower reads one changed
history, and predicts the events that really followed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

CROP, MASK, REORDER, SUBSTITUTE = "crop", "mask", "reorder", "substitute"
TRANSFORMATIONS = (CROP, MASK, REORDER, SUBSTITUTE)
MIN_EVENTS = 2  # of a window: an input and a target


class Augmentation:
    """Transforms a fraction of the training windows, each in one way.

    Args:
      rate: fraction of the windows that are transformed. Each of them is transformed in
        one way, chosen with equal probability from those that have a share.
      shares: by name in `TRANSFORMATIONS`, the share of a window that a transformation
        changes, but at least one item; 0 leaves the transformation out.
      neighbours_NxK: similar items of each item, for `substitute`.
    """

    def __init__(
        self,
        rate: float = 0.0,
        shares: Mapping[str, float] | None = None,
        neighbours_NxK: np.ndarray | None = None,
    ):
        used = shares.items() if shares and rate else ()
        self.rate = rate
        self.shares = {name: share for name, share in used if share}
        self.neighbours_NxK = neighbours_NxK

    def probability(self, name: str) -> float:
        """Returns the probability that a window is transformed in this way."""
        return self.rate / len(self.shares) if name in self.shares else 0.0

    def choose(self, rng: np.random.Generator) -> str:
        """Chooses the transformation of a window; "" leaves the window as it is."""
        # Without a transformation no number is drawn, so that batches do not change.
        if not self.shares or rng.random() >= self.rate:
            return ""
        names = list(self.shares)
        return names[rng.integers(len(names))]

    def kept_events(self, num_events: Any) -> Any:
        """Returns how many of a window's events `crop` keeps; also of an array."""
        cut = _count(self.shares[CROP], num_events)
        return np.maximum(num_events - cut, MIN_EVENTS)

    def crop(
        self, num_events: int, rng: np.random.Generator, *, newest: bool = False
    ) -> slice:
        """Chooses a contiguous part of a window's events, or the newest ones."""
        kept = int(self.kept_events(num_events))
        start = num_events - kept
        if not newest:
            start = int(rng.integers(start + 1))
        return slice(start, start + kept)

    def crop_probabilities(self, num_events: int) -> np.ndarray:
        """Probability of each event to be a target of a cropped window."""
        kept = int(self.kept_events(num_events))
        num_starts = num_events - kept + 1
        # All events of a part are targets, except its first one.
        is_target = (np.arange(kept) > 0).astype(float)
        return np.convolve(np.full(num_starts, 1 / num_starts), is_target)

    def change_inputs(
        self, name: str, items: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Changes the inputs of a window: all of its events except the last.

        Args:
          name: `mask`, `reorder` or `substitute`; others change nothing.
          items: item indices of the window's events, the last target included.
          rng: the source of randomness.

        Returns:
          The inputs, and for each of them the number of its event in the window.
        """
        events = np.arange(len(items) - 1)
        if name == MASK:
            events = mask(len(events), self.shares[MASK], rng)
        elif name == REORDER:
            events = reorder(len(events), self.shares[REORDER], rng)
        elif name == SUBSTITUTE:
            assert self.neighbours_NxK is not None
            share = self.shares[SUBSTITUTE]
            return substitute(items, share, self.neighbours_NxK, rng), events
        return items[events], events


def mask(size: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Leaves out a share of the events, never the first; returns those that stay."""
    # The first one stays, so that every target has a history.
    number = min(_count(share, size), size - 1)
    left_out = 1 + rng.choice(size - 1, number, replace=False)
    return np.delete(np.arange(size), left_out)


def reorder(size: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Shuffles a contiguous share of the events, never the first; returns the order."""
    order = np.arange(size)
    number = min(max(_count(share, size), 2), size - 1)
    if number < 2:
        return order
    start = 1 + rng.integers(size - number)
    rng.shuffle(order[start : start + number])
    return order


def substitute(
    items: np.ndarray,
    share: float,
    neighbours_NxK: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Replaces a share of a window's inputs by neighbours; returns the inputs.

    A neighbour that is itself an item of the window is not used, because it may be a
    target; an input whose neighbours are all in the window stays.
    """
    inputs = items[:-1].copy()
    chosen = rng.choice(len(inputs), _count(share, len(inputs)), replace=False)
    options_CxK = neighbours_NxK[inputs[chosen]]
    allowed_CxK = ~np.isin(options_CxK, items)
    # The largest of K random numbers belongs to each allowed option equally often.
    draw_CxK = np.where(allowed_CxK, rng.random(options_CxK.shape), -1.0)
    best_C = draw_CxK.argmax(axis=1)
    substitutes_C = options_CxK[np.arange(len(chosen)), best_C]
    inputs[chosen] = np.where(allowed_CxK.any(axis=1), substitutes_C, inputs[chosen])
    return inputs


def positions_before(events: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Position of the inputs at which each target can be predicted without a leak.

    It is the newest one whose history, itself included, has only events older than the
    target. In the order of the data it is the position just before the target.

    Args:
      events: number of each input's event in the window; the first input is event 0.
      targets: numbers of the target events, at least 1.
    """
    newest = np.maximum.accumulate(events)  # event that a history has seen
    return np.searchsorted(newest, targets) - 1


def _count(share: float, size: Any) -> Any:
    """Number of items in a share of `size` items, rounded, but at least one."""
    return np.maximum(np.rint(share * size), 1).astype(np.int64)
