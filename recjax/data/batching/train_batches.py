"""Shuffled, deduplicated training batches."""

from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from recjax.data.batching.length_groups import LengthGroups
from recjax.data.batching.negatives import NEGATIVES, NegativeSampler
from recjax.data.batching.times import pad_times
from recjax.data.batching.types import Batch, likes
from recjax.data.batching.windows import NextItem, Window
from recjax.data.padding import pad_left, pad_to, round_up
from recjax.data.text.packing import Items, Packed, Packing, whole_catalogue

MAX_STEPS = 2**31 - 1  # of a phase
SAMPLED_BATCHES = 64  # from which the sizes of all batches are estimated
# Standard deviations above the mean, for the sizes of batches. A batch in fifteen
# exceeds the first, which wastes little on padding, and hardly any the second.
DEVIATIONS = (1.5, 5.0)


class BatchShape(NamedTuple):
    """Sizes of a batch's arrays; each combination of them is compiled separately."""

    targets: int  # P
    items: int  # U
    rows: int  # R, of packed texts

    def holds(self, other: "BatchShape") -> bool:
        """Returns whether a batch of another shape fits, with padding."""
        return all(size >= needed for size, needed in zip(self, other, strict=True))


class TrainBatches:
    """Shuffled batches of windows over the training examples.

    Args:
      batch_size: B; the last batch of an epoch is padded.
      epoch_steps: batches per epoch; 0 = enough to read every window once.
      negatives: items that a target competes with, a key of `negatives.NEGATIVES`.
      logq: whether to correct for how often an item is sampled, see `NegativeSampler`.
      excluded_N: whether an item is no negative; None excludes none.
      num_negatives: items sampled for a batch, with replacement.
      multiple: U and P become multiples of it.
      like: the lowest rating of a liked item; None if ratings are not used.
      rated_only: whether targets without a rating are left out.
      by_length: whether to batch windows of similar length, see `LengthGroups`.
    """

    def __init__(
        self,
        windows: NextItem,
        *,
        batch_size: int,
        epoch_steps: int = 0,
        negatives: str,
        logq: bool,
        num_items: int,
        excluded_N: np.ndarray | None = None,
        num_negatives: int = 0,
        multiple: int = 1,
        like: float | None = None,
        rated_only: bool = False,
        by_length: bool = False,
        seed: int = 0,
    ):
        self.windows = windows
        self.length = windows.length
        self.batch_size = batch_size
        self.negatives = NEGATIVES[negatives]
        self.multiple = multiple
        self.like = like
        self.rated_only = rated_only
        self.packing: Packing | None = None  # set by a phase that has to encode texts
        self.num_items = num_items
        if excluded_N is None:
            excluded_N = np.zeros(num_items, bool)
        self.log_weight_N = np.where(excluded_N, -np.inf, 0).astype(np.float32)
        self.target_freq_N = self._target_freq()
        (allowed,) = np.nonzero(~excluded_N)
        samplers = [
            make(self.target_freq_N, allowed, num_negatives)
            for make in self.negatives.samplers
        ]
        self._sampler = NegativeSampler(samplers, logq)
        self.seed = seed
        self.steps_per_epoch = epoch_steps or -(-len(windows) // batch_size)
        self._shapes: dict[int, list[BatchShape]] = {}  # by width
        self._groups = None
        if by_length:
            lengths_W = windows.lengths()
            self._groups = LengthGroups(lengths_W, self.length, batch_size, seed)
        # Grain seeds the generator of each batch by its index, so an iterator that is
        # restored in the middle of an epoch continues with the same batches.
        self._dataset = (
            self._chosen_windows()
            .random_map(self.make_batch)
            .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
        )

    def _chosen_windows(self) -> grain.MapDataset:
        """Endless batches of window indices."""
        if self._groups is not None:
            return (
                grain.MapDataset.range(MAX_STEPS)
                .seed(self.seed)
                .map(self._groups.batch)
            )
        windows = grain.MapDataset.range(len(self.windows)).seed(self.seed)
        return windows.shuffle().batch(self.batch_size).repeat()

    def __iter__(self) -> grain.DatasetIterator:
        """Endless iterator, with `get_state` and `set_state`."""
        return iter(self._dataset)

    def make_batch(
        self, chosen: np.ndarray, rng: np.random.Generator | None = None
    ) -> Batch:
        """Makes a batch of the chosen windows; without `rng`, always the same."""
        windows = [self.windows.window(int(w), rng) for w in chosen]
        targets = np.concatenate([window.targets for window in windows])
        width = self._width(chosen)
        if self.negatives.needs_whole_catalogue:
            shape = self.shape_for(BatchShape(len(targets), 0, 0), width)
            # With all items as candidates, item indices already index into them.
            return self._lay_out(chosen, windows, targets, shape, width)
        rng = rng or np.random.default_rng(0)
        distinct, negatives = self._distinct_items(windows, targets, rng)
        packed = self.packing.pack(distinct) if self.packing else None
        shape = self.shape_for(_needed_shape(targets, distinct, packed), width)
        batch = self._lay_out(chosen, windows, targets, shape, width)
        items = self._make_items(distinct, negatives, packed, shape)
        return self._index_items(batch, targets, items, distinct)

    def _width(self, chosen: np.ndarray) -> int:
        """Returns the width H of a batch of the chosen windows."""
        if self._groups is None:
            return self.length
        # Of the windows before any augmentation, which can only shorten them.
        return int(self._groups.widths_W[chosen].max())

    def _lay_out(
        self,
        chosen: np.ndarray,
        windows: Sequence[Window],
        targets: np.ndarray,
        shape: BatchShape,
        width: int,
    ) -> Batch:
        """Lays out inputs and targets as arrays of item indices."""
        return Batch(
            *self._lay_out_inputs(windows, width),
            *self._lay_out_targets(windows, targets, shape.targets, width),
            pad_to(self.windows.windows_Wx3[chosen, 0], self.batch_size),
            items=None,
            liked_BxH=self._lay_out_likes(windows, width),
            times_BxH=self._lay_out_times(windows, width),
        )

    def _distinct_items(
        self, windows: Sequence[Window], targets: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Returns the items to encode, sorted, and the negatives with their weights."""
        visible = [
            window.inputs if window.hidden is None else window.inputs[~window.hidden]
            for window in windows
        ]
        negatives = self._sampler.sample(targets, len(windows), rng)
        # Every item is encoded once, however often it occurs.
        return np.unique(np.concatenate([targets, negatives[0], *visible])), negatives

    def _lay_out_inputs(
        self, windows: Sequence[Window], width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """history_BxH, mask_BxH and hidden_BxH of a batch."""
        shape = (self.batch_size, width)
        inputs = [window.inputs for window in windows]
        history_BxH, mask_BxH = pad_left(inputs, shape)
        hidden = [window.hidden for window in windows if window.hidden is not None]
        if not hidden:
            return history_BxH, mask_BxH, None
        hidden_BxH = pad_left(hidden, shape)[0] > 0
        # Without its index, a hidden item cannot leak into the model.
        history_BxH[hidden_BxH] = 0
        return history_BxH, mask_BxH, hidden_BxH

    def _lay_out_likes(
        self, windows: Sequence[Window], width: int
    ) -> np.ndarray | None:
        """Whether users liked the items of a batch's histories: liked_BxH."""
        if self.like is None:
            return None
        liked = [likes(window.input_ratings, self.like) for window in windows]
        return pad_left(liked, (self.batch_size, width))[0]

    def _lay_out_times(
        self, windows: Sequence[Window], width: int
    ) -> np.ndarray | None:
        """times_BxH of a batch; None if the user tower does not read them."""
        times = [window.times for window in windows if window.times is not None]
        return pad_times(times, (self.batch_size, width)) if times else None

    def _lay_out_targets(
        self, windows: Sequence[Window], targets: np.ndarray, size: int, width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """targets_P, position_P and label_P of a batch, where P = `size`."""
        targets_P = pad_to(targets, size, 0)
        # Inputs are padded on the left, so they end at the last of H positions.
        positions = [
            (b + 1) * width - len(window.inputs) + window.positions
            for b, window in enumerate(windows)
        ]
        position_P = pad_to(np.concatenate(positions), size)
        if self.like is None:
            return targets_P, position_P, None
        ratings = np.concatenate([window.ratings for window in windows])
        label_P = pad_to(likes(ratings, self.like), size)
        if self.rated_only:
            position_P[label_P < 0] = -1
        return targets_P, position_P, label_P

    def _make_items(
        self,
        distinct: np.ndarray,
        negatives: tuple[np.ndarray, np.ndarray],
        packed: Packed | None,
        shape: BatchShape,
    ) -> Items:
        """Pads the items to encode, and weights those that are candidates."""
        if packed is not None:
            packed = packed.fill_up(shape.rows, shape.items)
        if self.negatives.is_stale:
            # Candidates are the rows of the stale table.
            return Items(pad_to(distinct, shape.items), self.log_weight_N, packed)
        # Items that are only in histories are encoded, but they are no candidates.
        log_weight_U = np.full(shape.items, -np.inf, np.float32)
        items, weights = negatives
        log_weight_U[np.searchsorted(distinct, items)] = np.log(weights)
        return Items(pad_to(distinct, shape.items), log_weight_U, packed)

    def _index_items(
        self, batch: Batch, targets: np.ndarray, items: Items, distinct: np.ndarray
    ) -> Batch:
        """Makes the indices of a batch point to the items that it encodes."""
        visible_BxH = batch.mask_BxH
        if batch.hidden_BxH is not None:
            visible_BxH = visible_BxH & ~batch.hidden_BxH
        # `distinct` is sorted: a binary search gives an item's index in it.
        history_BxH = np.searchsorted(distinct, batch.history_BxH)
        history_BxH = np.where(visible_BxH, history_BxH, 0)
        targets_P = batch.targets_P
        if not self.negatives.is_stale:  # its candidates are all items, in their order
            targets_P = pad_to(np.searchsorted(distinct, targets), len(targets_P), 0)
        return batch._replace(history_BxH=history_BxH, targets_P=targets_P, items=items)

    def all_items(self) -> Items:
        """The catalogue, as the candidates of every batch; see `whole_catalogue`."""
        items = whole_catalogue(self.num_items, self.packing, self.multiple)
        items.log_weight_U[: self.num_items] = self.log_weight_N
        return items

    def _target_freq(self) -> np.ndarray:
        """target_freq_N: mean number of times that an item is a target of a window."""
        freq_N = np.zeros(self.num_items)
        if not self.negatives.needs_target_freq:  # a pass over all windows takes time
            return freq_N
        for w in range(len(self.windows)):
            items, probabilities = self.windows.target_probabilities(w)
            np.add.at(freq_N, items, probabilities)
        return freq_N / len(self.windows)

    def shape_for(self, needed: BatchShape, width: int) -> BatchShape:
        """Returns the smallest of the usual shapes that holds a batch."""
        shapes = self._shapes.get(width)
        if shapes is None:
            shapes = self._shapes[width] = self._estimate_shapes(width)
        usual = next((shape for shape in shapes if shape.holds(needed)), None)
        if usual is not None:
            return usual
        # So rare that its own compilation costs less than the padding of all others.
        largest = BatchShape(
            self.batch_size * min(self.windows.max_targets, width),
            *(2 ** max(size - 1, 1).bit_length() for size in needed[1:]),
        )
        sizes = zip(shapes[-1], needed, largest, strict=True)
        return self._round_up(
            BatchShape._make(own if own >= size else more for own, size, more in sizes)
        )

    def _estimate_shapes(self, width: int) -> list[BatchShape]:
        """The usual shapes of batches of a width, estimated from a sample of them."""
        members = np.arange(len(self.windows))
        if self._groups is not None:
            members = np.flatnonzero(self._groups.widths_W == width)
        mean, variance = self.windows.count_targets(members)
        size = min(self.batch_size, len(self.windows))
        largest = size * min(self.windows.max_targets, width)
        # Most histories are shorter than H, so P = B * H would be mostly padding.
        usual = size * mean + DEVIATIONS[-1] * (variance * size) ** 0.5
        num_targets = min(int(np.ceil(usual)), largest)
        if self.negatives.needs_whole_catalogue:
            return [self._round_up(BatchShape(num_targets, 0, 0))]
        rng = np.random.default_rng(self.seed)
        sizes = []
        for _ in range(SAMPLED_BATCHES):
            chosen = rng.choice(members, min(size, len(members)), replace=False)
            windows = [self.windows.window(int(w), rng) for w in chosen]
            targets = np.concatenate([window.targets for window in windows])
            distinct, _ = self._distinct_items(windows, targets, rng)
            packed = self.packing.pack(distinct) if self.packing else None
            sizes.append(_needed_shape(targets, distinct, packed)[1:])
        mean_2, std_2 = np.mean(sizes, axis=0), np.std(sizes, axis=0)
        return [
            self._round_up(BatchShape(num_targets, *np.ceil(mean_2 + d * std_2)))
            for d in DEVIATIONS
        ]

    def _round_up(self, shape: BatchShape) -> BatchShape:
        """Rounds the sizes up to the multiples that the mesh needs."""
        rows = self.packing.multiple if self.packing else 1
        multiples = (self.multiple, self.multiple, rows)
        return BatchShape._make(
            round_up(int(size), multiple)
            for size, multiple in zip(shape, multiples, strict=True)
        )


def _needed_shape(
    targets: np.ndarray, distinct: np.ndarray, packed: Packed | None
) -> BatchShape:
    """Returns the shape of a batch without padding."""
    return BatchShape(
        len(targets), len(distinct), len(packed.index_RxL) if packed else 0
    )
