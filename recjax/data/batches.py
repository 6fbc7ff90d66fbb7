"""Rows -> shuffled, deduplicated training batches; the catalogue in pieces.

Histories are padded on the left, so that the newest item always stands at the last
position, where the user's vector is read.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import numpy as np

from recjax.data.protocol import Rows
from recjax.data.text import Packed, Tokens, pack, split_rows


class Items(NamedTuple):
    """The U distinct items of a batch, each to be encoded once.

    Attributes:
      rows_U: catalogue rows; -1 is padding.
      log_weight_U: what a candidate's term in the softmax's partition sum is
        multiplied with, as a logarithm; -inf keeps it out. The candidates are these
        items or, where they are stale, the catalogue.
      packed: the items' texts, where the encoder has to run on them.
    """

    rows_U: np.ndarray
    log_weight_U: np.ndarray
    packed: Packed | None


class Batch(NamedTuple):
    """B users. `history_BxH` are indices into `items`, `targets_P` into candidates.

    Attributes:
      place_P: b * H + h where the user tower answers for the target; -1 is padding.
        Where every prefix is a training example, every item of a history asks for
        the next one, else the last one alone.
      rows_B: training row of each user; -1 where a place only fills the batch.
    """

    history_BxH: np.ndarray
    mask_BxH: np.ndarray
    targets_P: np.ndarray
    place_P: np.ndarray
    rows_B: np.ndarray | None
    items: Items | None


@dataclass(frozen=True)
class Packing:
    """How texts are packed: tokens a row, and what R must be a multiple of."""

    tokens: Tokens
    width: int
    multiple: int = 1


class TrainBatches:
    """Shuffled batches of windows over the training rows.

    Args:
      rows: training rows.
      batch_size: B; the last batch of an epoch is filled with masked users.
      history_length: H, in items.
      windows: 'last' uses the newest H + 1 items of a sequence; 'all' cuts the
        whole sequence, so that every event is a target.
      negatives: what a target competes with: 'all' (the catalogue; `Batch.items` is
        None), 'stale' (the catalogue too, but `Batch.items` holds the batch's own
        items only), 'in_batch' (the batch's targets), 'uniform' (items drawn with
        equal chances), 'popularity' (with chances as they are targets), 'mixed'
        (in-batch and uniform: Yang et al., Mixed Negative Sampling, 2020).
      logq: whether candidates are weighted by 1 / expected count.
      num_items: N.
      num_negatives: drawn for a batch, with replacement, where items are drawn.
      multiple: U becomes a multiple of it.
      shuffle_ties: whether events of one time stand in a new order in every epoch:
        the order in the file says nothing.
      reverse: share of the windows that are read from the newest item to the oldest,
        where every item is a target: what follows an item also leads to it (Liu et
        al., ASReP, 2021, train so before the real training).
      seed: of the order.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        history_length: int,
        windows: str,
        negatives: str,
        logq: bool,
        num_items: int,
        num_negatives: int = 0,
        multiple: int = 1,
        shuffle_ties: bool = False,
        reverse: float = 0.0,
        seed: int = 0,
    ):
        self.rows, self.length, self.batch_size = rows, history_length, batch_size
        self.negatives, self.logq, self.multiple = negatives, logq, multiple
        self.num_negatives = num_negatives
        self.shuffle_ties = shuffle_ties
        self.reverse = reverse if rows.every_prefix else 0.0
        self.packing: Packing | None = None  # set where texts have to be encoded
        self.num_targets = history_length if rows.every_prefix else 1
        self.windows_Wx3 = _cut_windows(rows, history_length, windows)
        self._place_sizes = self._choose_place_sizes()
        self.num_items = num_items
        self.share_N = np.zeros(num_items)  # how often a window has an item as target
        if negatives == "popularity" or (logq and negatives in ("in_batch", "mixed")):
            for window in self.windows_Wx3:
                part, chance = self._target_chances(window)
                np.add.at(self.share_N, part, chance)
            self.share_N /= len(self.windows_Wx3)
        if negatives == "popularity":
            self._below_N = np.cumsum(self.share_N[:-1]) / self.share_N.sum()
        self.steps_per_epoch = -(-len(self.windows_Wx3) // batch_size)
        self._dataset = (
            grain.MapDataset.range(len(self.windows_Wx3))
            .seed(seed)
            .shuffle()
            .batch(batch_size)
            .repeat()
            .random_map(self.make_batch)
            .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
        )

    def __iter__(self) -> Any:
        """An endless grain iterator, with `get_state` and `set_state`."""
        return iter(self._dataset)

    def make_batch(
        self, chosen: np.ndarray, rng: np.random.Generator | None = None
    ) -> Batch:
        """Batch of the chosen windows, in the order of the data without `rng`."""
        shape = (self.batch_size, self.length)
        history_BxH, mask_BxH = np.zeros(shape, np.int32), np.zeros(shape, bool)
        each: list[np.ndarray] = []
        places: list[np.ndarray] = []
        for b, window in enumerate(self.windows_Wx3[chosen]):
            inputs, asked = self._sequence(window, rng)
            fill_left(history_BxH, mask_BxH, b, inputs)
            each.append(asked)
            places.append((b + 1) * self.length - len(asked) + np.arange(len(asked)))
        targets = np.concatenate(each)
        rows_B = np.full(self.batch_size, -1, np.int32)
        rows_B[: len(chosen)] = self.windows_Wx3[chosen][:, 0]
        size = next(size for size in self._place_sizes if size >= len(targets))
        targets_P, place_P = np.zeros(size, np.int32), np.full(size, -1, np.int32)
        place_P[: len(targets)] = np.concatenate(places)
        targets_P[: len(targets)] = targets
        if self.negatives == "all":
            return Batch(history_BxH, mask_BxH, targets_P, place_P, rows_B, None)
        touched = np.union1d(targets, history_BxH[mask_BxH])
        rng = rng or np.random.default_rng(0)
        rows, weights = self._draw(targets, len(chosen), rng)
        distinct = np.union1d(touched, rows)
        rows_U = np.full(_bucket(len(distinct), self.multiple, parts=2), -1, np.int32)
        rows_U[: len(distinct)] = distinct
        log_weight_U = np.full(len(rows_U), -np.inf, np.float32)
        log_weight_U[np.searchsorted(distinct, rows)] = np.log(weights)
        history_BxH = np.where(mask_BxH, np.searchsorted(distinct, history_BxH), 0)
        if self.negatives == "stale":
            log_weight_U = np.zeros(self.num_items, np.float32)
        else:
            targets_P[: len(targets)] = np.searchsorted(distinct, targets)
        items = Items(rows_U, log_weight_U, self._pack(rows_U))
        return Batch(history_BxH, mask_BxH, targets_P, place_P, rows_B, items)

    def _choose_place_sizes(self) -> list[int]:
        """Sizes of P: one that hardly a batch exceeds, and one that none can."""
        _, start_W, end_W = self.windows_Wx3.T
        count_W = np.minimum(end_W - start_W - 1, self.num_targets)
        mean, spread = count_W.mean(), count_W.std()
        usual = self.batch_size * mean + 4 * spread * self.batch_size**0.5
        most = self.batch_size * self.num_targets
        some = min(int(np.ceil(usual)), most)
        return [round_up(size, self.multiple) for size in (some, most)]

    def _draw(
        self, targets: np.ndarray, num_windows: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The batch's negatives, each once, and their weights: count / expected."""
        some, size = [np.zeros(0, np.int64)], self.num_negatives
        if self.negatives in ("in_batch", "mixed"):
            some.append(targets)
        if self.negatives in ("uniform", "mixed"):
            some.append(rng.integers(self.num_items, size=size))
        if self.negatives == "popularity":
            some.append(np.searchsorted(self._below_N, rng.random(size), "right"))
        rows, counts = np.unique(np.concatenate(some), return_counts=True)
        if not self.logq:
            return rows, counts.astype(np.float64)
        expected = np.zeros(len(rows))
        if self.negatives in ("in_batch", "mixed"):
            expected += self.share_N[rows] * num_windows
        if self.negatives in ("uniform", "mixed"):
            expected += size / self.num_items
        if self.negatives == "popularity":
            expected += self.share_N[rows] / self.share_N.sum() * size
        return rows, counts / expected

    def all_items(self) -> Items:
        """The whole catalogue as the candidates of every batch."""
        return whole_catalogue(self.num_items, self.packing, self.multiple)

    def _sequence(
        self, window: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a window (row, start, end)."""
        row, start, end = window
        part = self.rows.sequence(row)[start:end]
        if rng is not None and self.shuffle_ties:
            times = self.rows.sequence_times(row)
            if times is not None:
                part = part[np.lexsort((rng.random(len(part)), times[start:end]))]
        if rng is not None and self.reverse and rng.random() < self.reverse:
            part = part[::-1]
        return part[:-1], part[1:][-self.num_targets :]

    def _target_chances(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items of a window (row, start, end) and how likely each is a target.

        Events of one time take each other's places in equal shares.
        """
        row, start, end = window
        target = np.arange(end - start) >= max(end - start - self.num_targets, 1)
        is_target = (1 - self.reverse) * target + self.reverse * target[::-1]
        part = self.rows.sequence(row)[start:end]
        times = self.rows.sequence_times(row) if self.shuffle_ties else None
        if times is None:
            return part, is_target
        _, tie = np.unique(times[start:end], return_inverse=True)
        return part, (np.bincount(tie, is_target) / np.bincount(tie))[tie]

    def _pack(self, rows_U: np.ndarray) -> Packed | None:
        """Texts of a batch's items. Empty rows cost time, empty places of U little."""
        if not self.packing:
            return None
        p = self.packing
        packed = pack(p.tokens, rows_U, width=p.width)
        return packed.fill_up(_bucket(len(packed.index_RxL), p.multiple, parts=8))


def whole_catalogue(num_items: int, packing: Packing | None, multiple: int) -> Items:
    """All items in order, filled up to a multiple."""
    rows_U = np.full(round_up(num_items, multiple), -1, np.int32)
    rows_U[:num_items] = np.arange(num_items)
    packed = None
    if packing:
        packed = pack(packing.tokens, rows_U, width=packing.width)
        packed = packed.fill_up(round_up(len(packed.index_RxL), packing.multiple))
    return _unweighted(rows_U, packed)


def catalogue_pieces(
    num_items: int, packing: Packing, multiple: int, rows: int
) -> list[Items]:
    """All items, in pieces of one shape with so many rows of packed texts.

    Texts are packed before they are cut, so that rows are empty in the last piece
    alone.
    """
    rows = round_up(rows, packing.multiple)
    packed = pack(packing.tokens, np.arange(num_items), width=packing.width)
    rows = min(rows, round_up(len(packed.index_RxL), packing.multiple))
    return [_unweighted(*part) for part in split_rows(packed, rows, multiple)]


def _unweighted(rows_U: np.ndarray, packed: Packed | None) -> Items:
    weight_U = np.where(rows_U >= 0, 0, -np.inf).astype(np.float32)
    return Items(rows_U, weight_U, packed)


def round_up(n: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least n."""
    return -(-n // multiple) * multiple


def fill_left(
    out_BxH: np.ndarray, mask_BxH: np.ndarray, b: int, values: np.ndarray
) -> None:
    """Writes values to the right end of row b, and True into its mask."""
    if len(values):
        out_BxH[b, -len(values) :] = values
        mask_BxH[b, -len(values) :] = True


def _bucket(n: int, multiple: int, parts: int) -> int:
    """Smallest size of at least n that has few neighbours: few shapes to compile.

    `parts` sizes lie between two powers of two, none closer than 8.
    """
    step = max(2 ** (max(n - 1, 1).bit_length() - 1) // parts, 8)
    return round_up(round_up(n, step), multiple)


def _cut_windows(rows: Rows, length: int, windows: str) -> np.ndarray:
    """(row, start, end) of every window into history + target."""
    cuts: list[tuple[int, int, int]] = []
    for row, size in enumerate(np.diff(rows.offsets) + 1):
        end = int(size)
        while end > 1:
            start = max(end - length - 1, 0)
            cuts.append((row, start, end))
            if windows == "last" or not rows.every_prefix:
                break
            end = start + 1  # the next older window ends with this one's first input
    return np.array(cuts, np.int64).reshape(-1, 3)
