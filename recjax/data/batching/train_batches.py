"""Shuffled, deduplicated training batches."""

from collections.abc import Sequence

import grain
import numpy as np

from recjax.data.batching.negatives import NEGATIVES, NegativeSampler
from recjax.data.batching.types import Batch
from recjax.data.batching.windows import NextItem, Window
from recjax.data.padding import pad_left, pad_to, round_up, round_up_shape
from recjax.data.text.packing import Items, Packed, Packing, whole_catalogue


class TrainBatches:
    """Shuffled batches of windows over the training examples.

    Args:
      batch_size: B; the last batch of an epoch is padded.
      epoch_steps: batches per epoch; 0 = enough to read every window once.
      negatives: items that a target competes with, a key of `negatives.NEGATIVES`.
      logq: whether to correct for how often an item is sampled, see `NegativeSampler`.
      held_out_N: whether an item is excluded from the candidates; None excludes none.
      num_negatives: items sampled for a batch, with replacement.
      multiple: U and P become multiples of it.
      like: the lowest rating of a liked item; None if ratings are not used.
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
        held_out_N: np.ndarray | None = None,
        num_negatives: int = 0,
        multiple: int = 1,
        like: float | None = None,
        seed: int = 0,
    ):
        self.windows = windows
        self.length = windows.length
        self.batch_size = batch_size
        self.negatives = NEGATIVES[negatives]
        self.multiple = multiple
        self.like = like
        self.packing: Packing | None = None  # set by a phase that has to encode texts
        self.num_items = num_items
        if held_out_N is None:
            held_out_N = np.zeros(num_items, bool)
        self.log_weight_N = np.where(held_out_N, -np.inf, 0).astype(np.float32)
        self.target_freq_N = self._target_freq()
        (allowed,) = np.nonzero(~held_out_N)
        samplers = [
            make(self.target_freq_N, allowed, num_negatives)
            for make in self.negatives.samplers
        ]
        self._sampler = NegativeSampler(samplers, logq)
        self._target_sizes = self._choose_target_sizes()
        self.steps_per_epoch = epoch_steps or -(-len(windows) // batch_size)
        # Grain seeds the generator of each batch by its index, so an iterator that is
        # restored in the middle of an epoch continues with the same batches.
        self._dataset = (
            grain.MapDataset.range(len(windows))
            .seed(seed)
            .shuffle()
            .batch(batch_size)
            .repeat()
            .random_map(self.make_batch)
            .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
        )

    def __iter__(self) -> grain.DatasetIterator:
        """Endless iterator, with `get_state` and `set_state`."""
        return iter(self._dataset)

    def make_batch(
        self, chosen: np.ndarray, rng: np.random.Generator | None = None
    ) -> Batch:
        """Makes a batch of the chosen windows; without `rng`, always the same."""
        windows = [self.windows.window(int(w), rng) for w in chosen]
        targets = np.concatenate([window.targets for window in windows])
        # With all items as candidates, item indices already index into them.
        batch = Batch(
            *self._lay_out_inputs(windows),
            *self._lay_out_targets(windows, targets),
            pad_to(self.windows.windows_Wx3[chosen, 0], self.batch_size),
            items=None,
        )
        if self.negatives.needs_whole_catalogue:
            return batch
        rng = rng or np.random.default_rng(0)
        return self._with_items(batch, targets, len(chosen), rng)

    def _lay_out_inputs(
        self, windows: Sequence[Window]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """history_BxH, mask_BxH and hidden_BxH of a batch."""
        shape = (self.batch_size, self.length)
        inputs = [window.inputs for window in windows]
        history_BxH, mask_BxH = pad_left(inputs, shape)
        hidden = [window.hidden for window in windows if window.hidden is not None]
        if not hidden:
            return history_BxH, mask_BxH, None
        hidden_BxH = pad_left(hidden, shape)[0] > 0
        # Without its index, a hidden item cannot leak into the model.
        history_BxH[hidden_BxH] = 0
        return history_BxH, mask_BxH, hidden_BxH

    def _lay_out_targets(
        self, windows: Sequence[Window], targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """targets_P, position_P and label_P of a batch."""
        size = next(size for size in self._target_sizes if size >= len(targets))
        targets_P = pad_to(targets, size, 0)
        # Inputs are padded on the left, so they end at the last of H positions.
        positions = [
            (b + 1) * self.length - len(window.inputs) + window.positions
            for b, window in enumerate(windows)
        ]
        position_P = pad_to(np.concatenate(positions), size)
        if self.like is None:
            return targets_P, position_P, None
        ratings = np.concatenate([window.ratings for window in windows])
        ratings_P = pad_to(ratings, size, np.nan, float)
        position_P[np.isnan(ratings_P)] = -1  # an unknown rating is no dislike
        return targets_P, position_P, (ratings_P >= self.like).astype(np.float32)

    def _with_items(
        self,
        batch: Batch,
        targets: np.ndarray,
        num_windows: int,
        rng: np.random.Generator,
    ) -> Batch:
        """Adds the distinct items to encode, and makes all indices point to them."""
        visible_BxH = batch.mask_BxH
        if batch.hidden_BxH is not None:
            visible_BxH = visible_BxH & ~batch.hidden_BxH
        # Every item is encoded once, however often it occurs.
        own_items = np.union1d(targets, batch.history_BxH[visible_BxH])
        negatives, weights = self._sampler.sample(targets, num_windows, rng)
        distinct = np.union1d(own_items, negatives)
        # Few sizes of U, because each is compiled separately.
        size = round_up_shape(len(distinct), self.multiple, parts=2)
        items_U = pad_to(distinct, size)
        # `distinct` is sorted: a binary search gives an item's index in it.
        history_BxH = np.searchsorted(distinct, batch.history_BxH)
        history_BxH = np.where(visible_BxH, history_BxH, 0)
        targets_P = batch.targets_P
        if self.negatives.is_stale:
            # Candidates are the stale table's rows, so targets stay item indices.
            log_weight_U = self.log_weight_N
        else:
            # Items that are only in histories are encoded, but they are no candidates.
            log_weight_U = np.full(size, -np.inf, np.float32)
            log_weight_U[np.searchsorted(distinct, negatives)] = np.log(weights)
            targets_P = pad_to(np.searchsorted(distinct, targets), len(targets_P), 0)
        items = Items(items_U, log_weight_U, self._pack(items_U))
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

    def _choose_target_sizes(self) -> list[int]:
        """Returns two sizes of P: one that few batches exceed, and the largest one."""
        # Most histories are shorter than H, so P = B * H would be mostly padding. Four
        # standard deviations above the mean leave the second size, and its compilation,
        # to about one batch in 30,000.
        mean, variance = self.windows.count_targets()
        usual = self.batch_size * mean + 4 * (variance * self.batch_size) ** 0.5
        largest = self.batch_size * self.windows.max_targets
        sizes = (min(int(np.ceil(usual)), largest), largest)
        return [round_up(size, self.multiple) for size in sizes]

    def _pack(self, items_U: np.ndarray) -> Packed | None:
        """Packs the texts of a batch's items if they have to be encoded."""
        if not self.packing:
            return None
        packed = self.packing.pack(items_U)
        # Finer sizes than for U, because an empty row costs as much as a full one.
        size = round_up_shape(len(packed.index_RxL), self.packing.multiple, parts=8)
        return packed.fill_up(size)
