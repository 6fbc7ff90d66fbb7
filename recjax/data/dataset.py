"""A split data set: the examples of each split, its tables and its fingerprint."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from recjax.data.text.template import Part, fill_template, parse_template

NO_SPLIT = "none"  # `data.split` that trains on all events


@dataclass(frozen=True)
class Examples:
    """R examples of a split: a history, oldest item first, and the target after it.

    Attributes:
      items: item index of each event, grouped by user and in order of time.
      starts_R, ends_R: bounds of each history in `items`; histories may overlap.
      all_positions: whether the items of a history are training targets too, because
        the example is a complete sequence; otherwise only `targets_R` are.
      seen_items: the same examples with the items that were removed from the histories;
        None if none were.
    """

    users_R: np.ndarray  # indices into `Data.user_ids`
    items: np.ndarray
    starts_R: np.ndarray
    ends_R: np.ndarray
    targets_R: np.ndarray  # item indices
    ratings_R: np.ndarray  # of the target events; NaN where unknown
    all_positions: bool = False
    times: np.ndarray | None = None  # of the events in `items`; None if unknown
    target_times_R: np.ndarray | None = None
    ratings: np.ndarray | None = None  # of the events in `items`; None if unknown
    seen_items: "Examples | None" = None

    def __len__(self) -> int:
        return len(self.targets_R)

    def _span(self, index: int) -> slice:
        return slice(self.starts_R[index], self.ends_R[index])

    def history(self, index: int) -> np.ndarray:
        """Item indices of one history, oldest first."""
        return self.items[self._span(index)]

    @property
    def _complete(self) -> "Examples":
        """The examples with nothing removed from their histories."""
        return self.seen_items or self

    def seen(self, index: int) -> np.ndarray:
        """Distinct items that the user interacted with before, without the target."""
        items = np.unique(self._complete.history(index))
        return items[items != self.targets_R[index]]

    def max_seen(self) -> int:
        """Upper bound of the size of `seen`, at least 1."""
        # Bounded by the events and by the catalogue: long histories repeat items.
        num_events = int(self._complete.lengths().max(initial=1))
        return min(num_events, int(self._complete.items.max(initial=0)) + 1)

    @functools.cached_property
    def repeats_R(self) -> np.ndarray:
        """Whether the user had interacted with the target before."""
        targets = enumerate(self.targets_R)
        return np.array([t in self._complete.history(i) for i, t in targets], bool)

    def lengths(self) -> np.ndarray:
        """Number of events in each history: length_R."""
        return self.ends_R - self.starts_R

    def positions(self) -> np.ndarray:
        """Indices into `items` of all events in histories, example by example."""
        return concat_ranges(self.starts_R, self.ends_R)

    def liked(self, index: int, threshold: float) -> np.ndarray:
        """Items of a history rated at least `threshold`; all if ratings are unknown."""
        history = self.history(index)
        if self.ratings is None or not threshold:
            return history
        return history[self.ratings[self._span(index)] >= threshold]

    def sequence(self, index: int) -> np.ndarray:
        """Item indices of one history, followed by its target."""
        return np.append(self.history(index), self.targets_R[index])

    def sequence_times(self, index: int) -> np.ndarray | None:
        """Times of the events in `sequence`; None if unknown."""
        if self.times is None or self.target_times_R is None:
            return None
        return np.append(self.times[self._span(index)], self.target_times_R[index])

    def history_times(self, index: int) -> np.ndarray:
        """Times of the events of one history, in seconds; NaN where unknown."""
        if self.times is None:
            return np.full(len(self.history(index)), np.nan)
        return self.times[self._span(index)]

    def sequence_ratings(self, index: int) -> np.ndarray:
        """Ratings of the events in `sequence`; NaN where unknown."""
        if self.ratings is None:
            ratings = np.full(len(self.history(index)), np.nan)
        else:
            ratings = self.ratings[self._span(index)]
        return np.append(ratings, self.ratings_R[index])

    def take(self, chosen: np.ndarray) -> "Examples":
        """Selects examples by index."""
        times_R, seen = self.target_times_R, self.seen_items
        return replace(
            self,
            users_R=self.users_R[chosen],
            starts_R=self.starts_R[chosen],
            ends_R=self.ends_R[chosen],
            targets_R=self.targets_R[chosen],
            ratings_R=self.ratings_R[chosen],
            target_times_R=None if times_R is None else times_R[chosen],
            seen_items=None if seen is None else seen.take(chosen),
        )

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item index of every event in histories, then of the targets."""
        users = np.concatenate([np.repeat(self.users_R, self.lengths()), self.users_R])
        return users, np.concatenate([self.items[self.positions()], self.targets_R])

    def events(self) -> np.ndarray:
        """Item indices of all training events, each counted once; targets come last."""
        users, items = self.pairs()
        if self.all_positions:
            return items
        # Examples that were cut before they were read share events: a target of one is
        # in the history of the next. So each target counts once, and an item that is
        # only in a user's histories once per user. With one integer per pair, a set
        # difference finds these.
        size = int(items.max(initial=0)) + 1
        only_history = np.setdiff1d(
            users * size + items, self.users_R * size + self.targets_R
        )
        return np.concatenate([only_history % size, self.targets_R])


@dataclass(frozen=True)
class Data:
    """A split data set, in which users and items are identified by their indices.

    `users` and `items` are tables in the order of the indices, with all columns as
    strings. Without a file of users or items they have only the ids.
    """

    user_ids: np.ndarray  # as in the files, or hashed
    item_ids: np.ndarray
    users: pl.DataFrame
    items: pl.DataFrame
    train: Examples
    valid: Examples
    test: Examples
    protocol: dict[str, Any]  # everything that can change the meaning of a metric
    fingerprint: str  # short hash of the protocol
    row_counts: dict[str, tuple[int, int]]  # by file: (all rows, used rows)
    rejected: pl.DataFrame  # bad rows, with the columns `tables.REJECTED`
    left_out: dict[str, int]  # events, users or examples not used, by description
    held_out_N: np.ndarray  # whether an item is held out of training, negatives too
    unreadable: dict[str, str]  # columns of items that cannot become text, with types
    test_examples_in_train: int  # number of test examples that are training examples

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self.item_ids)

    def render(self, template: str, key: str) -> list[str]:
        """Fills a template with the values of every item, see `fill_template`.

        Args:
          template: text with `{column}` fields.
          key: config key of the template, for errors.

        Raises:
          UserError: the template does not fit the item table.
        """
        parts = self._parse(template, key)
        return [fill_template(parts, row) for row in self.items.iter_rows(named=True)]

    def _parse(self, template: str, key: str) -> list[Part]:
        return parse_template(template, self.items.columns, key, self.unreadable)

    def blank(self, template: str) -> np.ndarray:
        """Whether all fields of the template are empty for an item: blank_N."""
        parts = self._parse(template, "text.template")
        fields = {field for _, field in parts if field is not None}
        empty_N = np.full(self.num_items, bool(fields))
        for field in fields:
            empty_N &= (self.items[field].str.strip_chars() == "").to_numpy()
        return empty_N


def count_events(data: Data) -> np.ndarray:
    """Number of training events of every item: count_N."""
    return np.bincount(data.train.events(), minlength=data.num_items)


def concat_ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Concatenates the integers of each range, from its start to before its end."""
    # Within a range both the value and its index in the result grow by one: their
    # difference is constant.
    sizes = ends - starts
    shift = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    return shift + np.arange(len(shift))
