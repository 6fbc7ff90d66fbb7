"""A split data set: rows of histories and targets, its tables, its fingerprint."""

import functools
import json
import string
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.common.files import sha256


class SeenItems(NamedTuple):
    """What the users of R rows had before, where it is more than their histories.

    Attributes:
      flat: catalogue rows of events.
      starts_R, ends_R: bounds of each row's part of it.
    """

    flat: np.ndarray
    starts_R: np.ndarray
    ends_R: np.ndarray


@dataclass(frozen=True)
class Examples:
    """R recommendation tasks: a history, oldest first, and the item that followed.

    Attributes:
      users_R: user of each row, as an index into `Data.user_ids`.
      flat: catalogue rows of events, those of a user in order. Histories are parts of
        it, and several may share a part.
      starts_R, ends_R: bounds of each history in `flat`.
      targets_R: catalogue row that followed the history.
      ratings_R: rating of the target event, NaN where the data has none.
      all_positions: whether each item of a history is a training target too
        (a whole sequence) or only `targets_R` (rows cut elsewhere).
      times: time of each event in `flat`, where it is known; of the targets in
        `target_times_R`.
      ratings: rating of each event in `flat`, where it is known.
      past: where histories lack items that the users had.
    """

    users_R: np.ndarray
    flat: np.ndarray
    starts_R: np.ndarray
    ends_R: np.ndarray
    targets_R: np.ndarray
    ratings_R: np.ndarray
    all_positions: bool = False
    times: np.ndarray | None = None
    target_times_R: np.ndarray | None = None
    ratings: np.ndarray | None = None
    past: SeenItems | None = None

    def __len__(self) -> int:
        return len(self.targets_R)

    def history(self, row: int) -> np.ndarray:
        """Catalogue rows of one history, oldest first."""
        return self.flat[self.starts_R[row] : self.ends_R[row]]

    def seen(self, row: int) -> np.ndarray:
        """Catalogue rows that the user had before, each once, without the target."""
        x = self.past or self
        seen = np.unique(x.flat[x.starts_R[row] : x.ends_R[row]])
        return seen[seen != self.targets_R[row]]

    def most_seen(self) -> int:
        """As many as `seen` has of any row, or more; at least 1."""
        x = self.past or self
        most = int((x.ends_R - x.starts_R).max(initial=1))
        return min(most, int(x.flat.max(initial=0)) + 1)

    @functools.cached_property
    def repeats_R(self) -> np.ndarray:
        """Whether the user had the target before."""
        x = self.past or self
        bounds = zip(x.starts_R, x.ends_R, self.targets_R, strict=True)
        return np.array([t in x.flat[start:end] for start, end, t in bounds], bool)

    def lengths(self) -> np.ndarray:
        """lengths_R of the histories."""
        return self.ends_R - self.starts_R

    def places(self) -> np.ndarray:
        """Where the events of all histories stand in `flat`, one row after another."""
        lengths_R = self.lengths()
        before_R = np.cumsum(lengths_R) - lengths_R
        first = np.repeat(self.starts_R - before_R, lengths_R)
        return first + np.arange(len(first))

    def liked(self, row: int, least: float) -> np.ndarray:
        """What of a history was rated at least `least`; all where that is not known."""
        if self.ratings is None or not least:
            return self.history(row)
        part = slice(self.starts_R[row], self.ends_R[row])
        return self.flat[part][self.ratings[part] >= least]

    def sequence(self, row: int) -> np.ndarray:
        """Catalogue rows of one history and its target."""
        return np.append(self.history(row), self.targets_R[row])

    def sequence_times(self, row: int) -> np.ndarray | None:
        """Times of `sequence`; None where they are not known."""
        if self.times is None or self.target_times_R is None:
            return None
        history = self.times[self.starts_R[row] : self.ends_R[row]]
        return np.append(history, self.target_times_R[row])

    def sequence_ratings(self, row: int) -> np.ndarray:
        """Ratings of `sequence`; NaN where they are not known."""
        if self.ratings is None:
            return np.append(
                np.full(len(self.history(row)), np.nan), self.ratings_R[row]
            )
        part = slice(self.starts_R[row], self.ends_R[row])
        return np.append(self.ratings[part], self.ratings_R[row])

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Users and catalogue rows of all that a user had, histories and targets."""
        users = np.concatenate([np.repeat(self.users_R, self.lengths()), self.users_R])
        return users, np.concatenate([self.flat[self.places()], self.targets_R])

    def events(self) -> np.ndarray:
        """Catalogue rows of all training events, each once.

        Rows cut elsewhere share events: theirs are the targets, after what a user's
        histories have and no target of the user is, once for each user.
        """
        users, items = self.pairs()
        if self.all_positions:
            return items
        size = int(items.max(initial=0)) + 1
        alone = np.setdiff1d(users * size + items, self.users_R * size + self.targets_R)
        return np.concatenate([alone % size, self.targets_R])


@dataclass(frozen=True)
class Data:
    """A split data set.

    Attributes:
      user_ids, item_ids: names as in the files; indices everywhere else.
      users, items: the user and the item table, in the order of the indices, all
        columns as strings; the ids alone where there is no such file.
      train, valid, test: the three splits.
      protocol: everything that can change what a metric means.
      fingerprint: short hash of `protocol`.
      rows: per file, its rows and those of them that were used.
      rejected: rows that were set aside, as `tables.REJECTED` says.
      left_out: what else was not used, and how many of it.
      held_out_N: items that training may not know, not even as negatives.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: pl.DataFrame
    items: pl.DataFrame
    train: Examples
    valid: Examples
    test: Examples
    protocol: dict[str, Any]
    fingerprint: str
    rows: dict[str, tuple[int, int]]
    rejected: pl.DataFrame
    left_out: dict[str, int]
    held_out_N: np.ndarray

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self.item_ids)

    def render(self, template: str) -> list[str]:
        """Fills the template's `{column}` fields for every item.

        Raises:
          UserError: a field that is no column of the item table, or asks for more than
            its value.
        """
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as e:
            raise self._does_not_fit(template, str(e)) from None
        for _, field, how, conversion in parts:
            if field is not None and (
                field not in self.items.columns or how or conversion
            ):
                raise self._does_not_fit(template, repr(field))
        return [
            "".join(text + (row[field] if field else "") for text, field, *_ in parts)
            for row in self.items.iter_rows(named=True)
        ]

    def blank(self, template: str) -> np.ndarray:
        """blank_N: whether all of the template's fields are, as `render` fills it."""
        fields = {field for _, field, *_ in string.Formatter().parse(template) if field}
        empty_N = np.full(self.num_items, bool(fields))
        for field in fields:
            empty_N &= (self.items[field].str.strip_chars() == "").to_numpy()
        return empty_N

    def _does_not_fit(self, template: str, what: str) -> UserError:
        return UserError(
            f"template {template!r}: {what} does not fit; the item table has "
            f"{', '.join(self.items.columns)}"
        )


def fingerprint(protocol: dict[str, Any]) -> str:
    """Twelve hex digits that differ wherever two protocols differ."""
    text = json.dumps(protocol, sort_keys=True)
    return sha256(text)[:12]


def count_events(data: Data) -> np.ndarray:
    """Training events of every item."""
    return np.bincount(data.train.events(), minlength=data.num_items)
