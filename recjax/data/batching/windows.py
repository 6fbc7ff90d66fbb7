"""Training rows -> windows of a history's length: what is read and what is asked."""

from typing import NamedTuple

import numpy as np

from recjax.data.dataset import Examples


class Window(NamedTuple):
    """One user of a batch.

    Attributes:
      inputs: catalogue rows, oldest first.
      places: of `inputs`, where the user tower answers.
      targets: catalogue row that is right there.
      ratings: of these events, NaN where the data has none.
      hidden: which inputs the user tower may not see; None where it sees all.
    """

    inputs: np.ndarray
    places: np.ndarray
    targets: np.ndarray
    ratings: np.ndarray
    hidden: np.ndarray | None = None


class NextItem:
    """Every item of a window asks for the next one; of rows cut elsewhere the last.

    Args:
      rows: training rows.
      length: H, in items.
      windows: 'last' uses the newest H + 1 items of a sequence; 'all' cuts the whole
        sequence, so that every event is a target.
      shuffle_ties: whether events of one time stand in a new order in every epoch:
        the order in the file says nothing.
      reverse: share of the windows that are read from the newest item to the oldest,
        where every item is a target: what follows an item also leads to it (Liu et
        al., ASReP, 2021, train so before the real training).
    """

    def __init__(
        self,
        rows: Examples,
        length: int,
        *,
        windows: str,
        shuffle_ties: bool = False,
        reverse: float = 0.0,
    ):
        self.rows, self.length, self.shuffle_ties = rows, length, shuffle_ties
        self.reverse = reverse if rows.all_positions else 0.0
        self.windows_Wx3 = _cut_windows(rows, length, windows)
        self.most = length if rows.all_positions else 1  # targets of a window

    def __len__(self) -> int:
        return len(self.windows_Wx3)

    def count_targets(self) -> tuple[float, float]:
        """Mean and variance of a window's number of targets."""
        _, start_W, end_W = self.windows_Wx3.T
        count_W = np.minimum(end_W - start_W - 1, self.most)
        return float(count_W.mean()), float(count_W.var())

    def example(self, w: int, rng: np.random.Generator | None) -> Window:
        """A window, in the order of the data without `rng`."""
        items, ratings = self._read(w, rng)
        targets = items[1:][-self.most :]
        places = np.arange(len(items) - 1 - len(targets), len(items) - 1)
        return Window(items[:-1], places, targets, ratings[1:][-self.most :])

    def chances(self, w: int) -> tuple[np.ndarray, np.ndarray]:
        """Items of a window and how likely each is a target.

        Events of one time take each other's places in equal shares.
        """
        row, start, end = self.windows_Wx3[w]
        items = self.rows.sequence(row)[start:end]
        target = self._target_shares(len(items))
        is_target = (1 - self.reverse) * target + self.reverse * target[::-1]
        times = self.rows.sequence_times(row) if self.shuffle_ties else None
        if times is None:
            return items, is_target
        _, tie = np.unique(times[start:end], return_inverse=True)
        return items, (np.bincount(tie, is_target) / np.bincount(tie))[tie]

    def _target_shares(self, size: int) -> np.ndarray:
        """How likely each place of a window of `size` items is a target."""
        return (np.arange(size) >= max(size - self.most, 1)).astype(float)

    def _read(
        self, w: int, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Items and ratings of a window, in the order in which it is trained on."""
        row, start, end = self.windows_Wx3[w]
        order = np.arange(start, end)
        if rng is not None and self.shuffle_ties:
            times = self.rows.sequence_times(row)
            if times is not None:
                order = order[np.lexsort((rng.random(len(order)), times[start:end]))]
        if rng is not None and self.reverse and rng.random() < self.reverse:
            order = order[::-1]
        return self.rows.sequence(row)[order], self.rows.sequence_ratings(row)[order]


class MaskedItem(NextItem):
    """Items hidden at random ask for themselves (Sun et al., BERT4Rec, 2019).

    Of rows cut elsewhere the target alone is hidden. A window has H items, at least
    one of them hidden; the oldest event of a sequence of k H + 1 is in none.

    Args:
      rows, length, windows, shuffle_ties, reverse: see `NextItem`.
      share: of a window's items that are hidden.
    """

    def __init__(self, rows: Examples, length: int, *, share: float, **options: object):
        super().__init__(rows, length, **options)  # type: ignore[arg-type]
        self.share = share if rows.all_positions else 0.0

    def count_targets(self) -> tuple[float, float]:
        """Mean and variance of a window's number of targets."""
        _, start_W, end_W = self.windows_Wx3.T
        size_W = np.minimum(end_W - start_W, self.length)
        mean_W = size_W * self.share + (1 - self.share) ** size_W
        inside = size_W * self.share * (1 - self.share)
        return float(mean_W.mean()), float(mean_W.var() + inside.mean())

    def example(self, w: int, rng: np.random.Generator | None) -> Window:
        """A window; without `rng` in the order of the data, the last item hidden."""
        items, ratings = (x[-self.length :] for x in self._read(w, rng))
        hidden = np.zeros(len(items), bool)
        if rng is not None and self.share:
            hidden = rng.random(len(items)) < self.share
        if not hidden.any():
            one = -1 if rng is None or not self.share else rng.integers(len(items))
            hidden[one] = True
        (places,) = np.nonzero(hidden)
        return Window(items, places, items[places], ratings[places], hidden)

    def _target_shares(self, size: int) -> np.ndarray:
        shares, seen = np.zeros(size), min(size, self.length)
        if self.share:
            shares[-seen:] = self.share + (1 - self.share) ** seen / seen
        else:
            shares[-1] = 1.0
        return shares


def _cut_windows(rows: Examples, length: int, windows: str) -> np.ndarray:
    """(row, start, end) of every window into history + target."""
    cuts: list[tuple[int, int, int]] = []
    for row, size in enumerate(rows.lengths() + 1):
        end = int(size)
        while end > 1:
            start = max(end - length - 1, 0)
            cuts.append((row, start, end))
            if windows == "last" or not rows.all_positions:
                break
            end = start + 1  # the next older window ends with this one's first input
    return np.array(cuts, np.int64).reshape(-1, 3)
