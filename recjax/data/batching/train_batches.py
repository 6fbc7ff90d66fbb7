"""Rows -> shuffled, deduplicated training batches; the catalogue in pieces.

Histories are padded on the left, so that the newest item always stands at the last
position, where the user's vector is read.
"""

from typing import Any

import grain
import numpy as np

from recjax.data.batching.negatives import NEGATIVES
from recjax.data.batching.types import Batch
from recjax.data.batching.windows import NextItem
from recjax.data.padding import fill_left, round_up, round_up_shape
from recjax.data.text.packing import Items, Packed, Packing, pack, whole_catalogue


class TrainBatches:
    """Shuffled batches of windows over the training rows.

    Args:
      windows: what is read and what is asked.
      batch_size: B; the last batch of the windows is filled with masked users.
      epoch_steps: batches of an epoch; 0 = as many as have every window once.
      negatives: what a target competes with, of `negatives.NEGATIVES`: 'all' (the
        catalogue; `Batch.items` is None), 'stale' (the catalogue too, but
        `Batch.items` holds the batch's own items only), or items that are drawn.
      logq: whether candidates are weighted by 1 / expected count.
      held_out_N: items that are no candidates; None where all are.
      num_items: N.
      num_negatives: drawn for a batch, with replacement, where items are drawn.
      multiple: U becomes a multiple of it.
      like: ratings from here on are likes; None where ratings do not count.
      seed: of the order.
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
        self.windows, self.length, self.batch_size = windows, windows.length, batch_size
        self.negatives = NEGATIVES[negatives]
        self.multiple, self.like = multiple, like
        self.packing: Packing | None = None  # set where texts have to be encoded
        self._place_sizes = self._choose_place_sizes()
        self.num_items = num_items
        if held_out_N is None:
            held_out_N = np.zeros(num_items, bool)
        self.log_weight_N = np.where(held_out_N, -np.inf, 0).astype(np.float32)
        self.target_freq_N = np.zeros(
            num_items
        )  # how often a window has an item as target
        if self.negatives.needs_target_freq:
            for w in range(len(windows)):
                items, chance = windows.chances(w)
                np.add.at(self.target_freq_N, items, chance)
            self.target_freq_N /= len(windows)
        (allowed,) = np.nonzero(~held_out_N)
        self._sampler = self.negatives.make_sampler(
            self.target_freq_N, allowed, num_negatives, logq=logq
        )
        self.steps_per_epoch = epoch_steps or -(-len(windows) // batch_size)
        self._dataset = (
            grain.MapDataset.range(len(windows))
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
        examples = [self.windows.example(int(w), rng) for w in chosen]
        shape = (self.batch_size, self.length)
        history_BxH, mask_BxH = np.zeros(shape, np.int32), np.zeros(shape, bool)
        hidden_BxH = None if examples[0].hidden is None else np.zeros(shape, bool)
        for b, example in enumerate(examples):
            fill_left(history_BxH, mask_BxH, b, example.inputs)
            if hidden_BxH is not None:
                hidden_BxH[b, -len(example.inputs) :] = example.hidden
        if hidden_BxH is not None:
            history_BxH[hidden_BxH] = 0
        examples_B = np.full(self.batch_size, -1, np.int32)
        examples_B[: len(chosen)] = self.windows.windows_Wx3[chosen][:, 0]
        targets = np.concatenate([x.targets for x in examples])
        size = next(size for size in self._place_sizes if size >= len(targets))

        def spread(values: np.ndarray, filling: Any) -> np.ndarray:
            out_P = np.full(size, filling, np.asarray(filling).dtype)
            out_P[: len(targets)] = values
            return out_P

        places = [
            (b + 1) * self.length - len(x.inputs) + x.places
            for b, x in enumerate(examples)
        ]
        position_P, label_P = spread(np.concatenate(places), np.int32(-1)), None
        if self.like is not None:
            ratings_P = spread(np.concatenate([x.ratings for x in examples]), np.nan)
            label_P = (ratings_P >= self.like).astype(np.float32)
            position_P[np.isnan(ratings_P)] = -1  # neither liked nor not
        batch = Batch(
            history_BxH,
            mask_BxH,
            hidden_BxH,
            spread(targets, np.int32(0)),
            position_P,
            label_P,
            examples_B,
            None,
        )
        if self.negatives.needs_whole_catalogue:
            return batch
        rng = rng or np.random.default_rng(0)
        return self._with_items(batch, targets, len(chosen), rng)

    def _with_items(
        self,
        batch: Batch,
        targets: np.ndarray,
        num_windows: int,
        rng: np.random.Generator,
    ) -> Batch:
        """The batch with the items it touches, each once, and its negatives."""
        shown_BxH = batch.mask_BxH
        if batch.hidden_BxH is not None:
            shown_BxH = shown_BxH & ~batch.hidden_BxH
        touched = np.union1d(targets, batch.history_BxH[shown_BxH])
        rows, weights = self._sampler.sample(targets, num_windows, rng)
        distinct = np.union1d(touched, rows)
        items_U = np.full(
            round_up_shape(len(distinct), self.multiple, parts=2), -1, np.int32
        )
        items_U[: len(distinct)] = distinct
        history_BxH = np.searchsorted(distinct, batch.history_BxH)
        history_BxH = np.where(shown_BxH, history_BxH, 0)
        targets_P = batch.targets_P
        if self.negatives.is_stale:
            log_weight_U = self.log_weight_N
        else:
            log_weight_U = np.full(len(items_U), -np.inf, np.float32)
            log_weight_U[np.searchsorted(distinct, rows)] = np.log(weights)
            targets_P = np.zeros_like(targets_P)
            targets_P[: len(targets)] = np.searchsorted(distinct, targets)
        items = Items(items_U, log_weight_U, self._pack(items_U))
        return batch._replace(history_BxH=history_BxH, targets_P=targets_P, items=items)

    def _choose_place_sizes(self) -> list[int]:
        """Sizes of P: one that hardly a batch exceeds, and one that none can."""
        mean, variance = self.windows.count_targets()
        usual = self.batch_size * mean + 4 * (variance * self.batch_size) ** 0.5
        most = self.batch_size * self.windows.most
        some = min(int(np.ceil(usual)), most)
        return [round_up(size, self.multiple) for size in (some, most)]

    def all_items(self) -> Items:
        """The whole catalogue as the candidates of every batch."""
        items = whole_catalogue(self.num_items, self.packing, self.multiple)
        items.log_weight_U[: self.num_items] = self.log_weight_N
        return items

    def _pack(self, items_U: np.ndarray) -> Packed | None:
        """Texts of a batch's items. Empty rows cost time, empty places of U little."""
        if not self.packing:
            return None
        p = self.packing
        packed = pack(p.tokens, items_U, width=p.width)
        return packed.fill_up(
            round_up_shape(len(packed.index_RxL), p.multiple, parts=8)
        )
