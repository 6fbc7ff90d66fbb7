"""Windows over training examples: the inputs of the user tower and its targets."""

from typing import NamedTuple

import numpy as np

from recjax.data.batching.augmentation import CROP, Augmentation, positions_before
from recjax.data.dataset import Examples


class Window(NamedTuple):
    """One window: the inputs of the user tower and the targets it has to predict."""

    inputs: np.ndarray  # item indices, oldest first
    positions: np.ndarray  # index into `inputs` where each target is predicted
    targets: np.ndarray  # item indices
    ratings: np.ndarray  # of the target events; NaN where unknown
    input_ratings: np.ndarray  # of the inputs; NaN where unknown
    hidden: np.ndarray | None = None  # inputs that the user tower may not see
    times: np.ndarray | None = None  # of the inputs; None if they are not read


class NextItem:
    """Next-item targets at every position (at the last one for pre-cut examples).

    Args:
      length: H, in items.
      windows: 'last' uses the newest H + 1 items of a sequence; 'all' cuts the sequence
        into windows, so that every event but the first is a target.
      shuffle_ties: whether to shuffle events of equal time in every epoch, because the
        file's order of them carries no information.
      reverse: probability that a window of a complete sequence is read from the newest
        item to the oldest, to learn from the events after an item too (Liu et al.,
        ASReP, 2021, use this for pre-training).
      augmentation: changes the inputs of a fraction of the windows; by default of none.
      with_times: whether windows have the times of their inputs, NaN where unknown.
    """

    def __init__(
        self,
        examples: Examples,
        length: int,
        *,
        windows: str,
        shuffle_ties: bool = False,
        reverse: float = 0.0,
        augmentation: Augmentation | None = None,
        with_times: bool = False,
    ):
        self.examples = examples
        self.with_times = with_times
        self.length = length
        self.shuffle_ties = shuffle_ties
        self.reverse = reverse if examples.all_positions else 0.0
        self.augmentation = augmentation or Augmentation()
        self.windows_Wx3 = _cut_windows(examples, length, windows)
        self.max_targets = length if examples.all_positions else 1

    def __len__(self) -> int:
        return len(self.windows_Wx3)

    def lengths(self) -> np.ndarray:
        """Number of inputs of each window: length_W."""
        _, start_W, end_W = self.windows_Wx3.T
        return end_W - start_W - 1

    def count_targets(self, chosen: np.ndarray | None = None) -> tuple[float, float]:
        """Mean and variance of the number of targets in the chosen windows, or all."""
        size_W = self.lengths() + 1
        if chosen is not None:
            size_W = size_W[chosen]
        count_W = np.minimum(size_W - 1, self.max_targets)
        probability = self.augmentation.probability(CROP)
        if not probability:
            return float(count_W.mean()), float(count_W.var())
        kept_W = self.augmentation.kept_events(size_W)
        change_W = np.minimum(kept_W - 1, self.max_targets) - count_W
        # Law of total variance: between windows, and of a window that may be cropped.
        mean_W = count_W + probability * change_W
        within_W = probability * (1 - probability) * change_W**2
        return float(mean_W.mean()), float(mean_W.var() + within_W.mean())

    def window(self, w: int, rng: np.random.Generator | None) -> Window:
        """Reads a window; without `rng`, in the order of the data."""
        items, ratings, times = self._read(w, rng)
        if rng is not None and (change := self.augmentation.choose(rng)):
            return self._transform(change, items, ratings, times, rng)
        # The first item of a window has no history, so it is no target.
        positions = np.arange(len(items) - 1)[-self.max_targets :]
        targets = positions + 1
        own = None if times is None else times[:-1]
        return Window(
            items[:-1],
            positions,
            items[targets],
            ratings[targets],
            ratings[:-1],
            times=own,
        )

    def _transform(
        self,
        change: str,
        items: np.ndarray,
        ratings: np.ndarray,
        times: np.ndarray | None,
        rng: np.random.Generator,
    ) -> Window:
        """Transforms a window; its targets are still the events that came next."""
        if change == CROP:
            # Of a pre-cut example only the last event may be a target.
            newest = not self.examples.all_positions
            part = self.augmentation.crop(len(items), rng, newest=newest)
            items, ratings = items[part], ratings[part]
            times = None if times is None else times[part]
        inputs, events = self.augmentation.change_inputs(change, items, rng)
        targets = np.arange(1, len(items))[-self.max_targets :]
        positions = positions_before(events, targets)
        return Window(
            inputs,
            positions,
            items[targets],
            ratings[targets],
            ratings[events],
            times=None if times is None else times[events],
        )

    def target_probabilities(self, w: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the items of a window, and the probability of each to be a target."""
        example, start, end = self.windows_Wx3[w]
        items = self.examples.sequence(example)[start:end]
        forward = self._position_probabilities(len(items))
        probabilities = (1 - self.reverse) * forward + self.reverse * forward[::-1]
        times = self.examples.sequence_times(example) if self.shuffle_ties else None
        if times is None:
            return items, probabilities
        # Events of equal time are shuffled, so each gets the mean probability of the
        # positions that it may take.
        _, tie = np.unique(times[start:end], return_inverse=True)
        return items, (np.bincount(tie, probabilities) / np.bincount(tie))[tie]

    def _position_probabilities(self, size: int) -> np.ndarray:
        """Probability of each position in a window of `size` items to be a target."""
        whole = (np.arange(size) >= max(size - self.max_targets, 1)).astype(float)
        probability = self.augmentation.probability(CROP)
        if not probability or not self.examples.all_positions:
            return whole
        cropped = self.augmentation.crop_probabilities(size)
        return (1 - probability) * whole + probability * cropped

    def _read(
        self, w: int, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Returns items, ratings and times in the order of this training step."""
        example, start, end = self.windows_Wx3[w]
        order = np.arange(start, end)
        times = None
        if self.with_times or self.shuffle_ties:
            times = self.examples.sequence_times(example)
        if rng is not None and self.shuffle_ties and times is not None:
            # Sorted by time, and by a random number where times are equal.
            order = order[np.lexsort((rng.random(len(order)), times[start:end]))]
        if rng is not None and self.reverse and rng.random() < self.reverse:
            order = order[::-1]
        items = self.examples.sequence(example)
        ratings = self.examples.sequence_ratings(example)
        if not self.with_times:
            return items[order], ratings[order], None
        if times is None:
            return items[order], ratings[order], np.full(len(order), np.nan)
        return items[order], ratings[order], times[order]


class MaskedItem(NextItem):
    """Masked-item targets: items hidden at random (Sun et al., BERT4Rec, 2019).

    A window has at most H items, at least one of them hidden; the oldest event of a
    sequence of k H + 1 items is in no window. Of pre-cut examples only the target is
    hidden.

    Args:
      share: probability of an item to be hidden.
      **options: see `NextItem`.
    """

    def __init__(
        self, examples: Examples, length: int, *, share: float, **options: object
    ):
        super().__init__(examples, length, **options)  # type: ignore[arg-type]
        self.share = share if examples.all_positions else 0.0

    def lengths(self) -> np.ndarray:
        """Number of inputs of each window: length_W."""
        # The target is an input too.
        return np.minimum(super().lengths() + 1, self.length)

    def count_targets(self, chosen: np.ndarray | None = None) -> tuple[float, float]:
        """Mean and variance of the number of targets in the chosen windows, or all."""
        size_W = self.lengths() if chosen is None else self.lengths()[chosen]
        # With probability (1 - share)^size none is drawn, and one is hidden anyway.
        mean_W = size_W * self.share + (1 - self.share) ** size_W
        # Law of total variance: between windows, and binomial within each.
        within_W = size_W * self.share * (1 - self.share)
        return float(mean_W.mean()), float(mean_W.var() + within_W.mean())

    def window(self, w: int, rng: np.random.Generator | None) -> Window:
        """Reads a window; without `rng`, in data order with the last item hidden."""
        # Windows are cut for H inputs and a target; here the target is itself an input.
        items, ratings = (values[-self.length :] for values in self._read(w, rng)[:2])
        if rng is None or not self.share:
            hidden = np.arange(len(items)) == len(items) - 1
        else:
            hidden = rng.random(len(items)) < self.share
            if not hidden.any():  # a window without a target would be wasted
                hidden[rng.integers(len(items))] = True
        (positions,) = np.nonzero(hidden)
        return Window(
            items, positions, items[positions], ratings[positions], ratings, hidden
        )

    def _position_probabilities(self, size: int) -> np.ndarray:
        probabilities = np.zeros(size)
        if not self.share:
            probabilities[-1] = 1.0
            return probabilities
        visible = min(size, self.length)
        alone = (1 - self.share) ** visible / visible  # hidden as the only item
        probabilities[-visible:] = self.share + alone
        return probabilities


def _cut_windows(examples: Examples, length: int, windows: str) -> np.ndarray:
    """Finds (example, start, end) of windows of at most `length` inputs + 1 target."""
    cuts: list[tuple[int, int, int]] = []
    for example, size in enumerate(examples.lengths() + 1):
        end = int(size)
        while end > 1:
            start = max(end - length - 1, 0)
            cuts.append((example, start, end))
            if windows == "last" or not examples.all_positions:
                break
            end = start + 1  # the next older window ends with this one's first input
    return np.array(cuts, np.int64).reshape(-1, 3)
