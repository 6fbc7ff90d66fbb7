"""What is trained on and what is asked: splits, and the protocol's fingerprint."""

import hashlib
import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.data import sources, tables
from recjax.errors import UserError


@dataclass(frozen=True)
class Rows:
    """R recommendation tasks: a history, oldest first, and the item that followed.

    Attributes:
      users_R: user of each row, as an index into `Data.user_ids`.
      flat: catalogue rows of all histories, one after another.
      offsets: R + 1 bounds of the histories in `flat`.
      targets_R: catalogue row that followed the history.
      ratings_R: rating of the target event, NaN where the data has none.
      every_prefix: whether each item of a history is a training target too
        (a whole sequence) or only `targets_R` (rows cut elsewhere).
      times: time of each event in `flat`, where it is known; of the targets in
        `target_times_R`.
      ratings: rating of each event in `flat`, where it is known.
    """

    users_R: np.ndarray
    flat: np.ndarray
    offsets: np.ndarray
    targets_R: np.ndarray
    ratings_R: np.ndarray
    every_prefix: bool = False
    times: np.ndarray | None = None
    target_times_R: np.ndarray | None = None
    ratings: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets_R)

    def history(self, row: int) -> np.ndarray:
        """Catalogue rows of one history, oldest first."""
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    def liked(self, row: int, least: float) -> np.ndarray:
        """What of a history was rated at least `least`; all where that is not known."""
        if self.ratings is None or not least:
            return self.history(row)
        part = slice(self.offsets[row], self.offsets[row + 1])
        return self.flat[part][self.ratings[part] >= least]

    def sequence(self, row: int) -> np.ndarray:
        """Catalogue rows of one history and its target."""
        return np.append(self.history(row), self.targets_R[row])

    def sequence_times(self, row: int) -> np.ndarray | None:
        """Times of `sequence`; None where they are not known."""
        if self.times is None or self.target_times_R is None:
            return None
        history = self.times[self.offsets[row] : self.offsets[row + 1]]
        return np.append(history, self.target_times_R[row])

    def events(self) -> np.ndarray:
        """Catalogue rows of all training events, each once."""
        if self.every_prefix:
            return np.concatenate([self.flat, self.targets_R])
        return self.targets_R


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
      undescribed: users that the user table, if there is one, does not have.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: pl.DataFrame
    items: pl.DataFrame
    train: Rows
    valid: Rows
    test: Rows
    protocol: dict[str, Any]
    fingerprint: str
    rows: dict[str, tuple[int, int]]
    rejected: pl.DataFrame
    undescribed: int

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
        return [template.format(**row) for row in self.items.iter_rows(named=True)]

    def _does_not_fit(self, template: str, what: str) -> UserError:
        return UserError(
            f"template {template!r}: {what} does not fit; the item table has "
            f"{', '.join(self.items.columns)}"
        )


def load_data(config: Any) -> Data:
    """Reads and splits the data set that `config.data` names.

    Args:
      config: the whole config; `data` and `eval` decide the protocol.

    Raises:
      UserError: missing files or columns, or bad values.
    """
    folder = sources.locate(config.data.source)
    return SPLITS[config.data.split](config, folder)


def fingerprint(protocol: dict[str, Any]) -> str:
    """Twelve hex digits that differ wherever two protocols differ."""
    text = json.dumps(protocol, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _split_leave_one_out(config: Any, folder: Path) -> Data:
    """Last event of each user = test, last but one = valid, the rest = train.

    Users with two events are only trained on, users with one not at all. Events are
    ordered by time; equal times keep the order of the file (a stable sort).
    """
    c, source = config.data, _Source(config, folder)
    table = source.read("inter")
    table.check_ids(c.user)
    table.check_ids(c.item)
    if c.time:
        table.check_times(c.time)
    if c.rating:
        table.check_numbers(c.rating, *c.rating_range)
    if not len(table):
        raise UserError(f"{table.path}: no interactions")
    items, item_path = source.items(table.frame[c.item])
    item_ids = items[c.item].to_numpy()
    table.check_known(c.item, item_ids, item_path)
    if c.time:
        table.check_distinct([c.user, c.item, c.time], "the same event again")
    source.hide_users(table)

    frame = table.frame
    user_ids, users = np.unique(frame[c.user].to_numpy(), return_inverse=True)
    times = frame[c.time].to_numpy() if c.time else np.arange(len(frame))
    ratings = frame[c.rating].to_numpy() if c.rating else np.full(len(frame), np.nan)
    rows = _look_up(frame[c.item], item_ids)
    order = np.lexsort((np.arange(len(frame)), times, users))
    rows, ratings, times = rows[order], ratings[order], times[order]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(users))])

    def cut(drop: int, least: int, every_prefix: bool) -> Rows:
        """Users with at least `least` events, without their last `drop`."""
        who = np.flatnonzero(np.diff(bounds) >= least)
        keep = np.diff(bounds)[who] - np.where(np.diff(bounds)[who] >= 3, drop, 0)
        last = bounds[who] + keep - 1
        inside = np.concatenate(
            [np.arange(bounds[u], e) for u, e in zip(who, last, strict=True)]
            or [np.zeros(0, np.int64)]
        )
        return Rows(
            users_R=who.astype(np.int32),
            flat=rows[inside],
            offsets=np.concatenate([[0], np.cumsum(last - bounds[who])]),
            targets_R=rows[last],
            ratings_R=ratings[last],
            every_prefix=every_prefix,
            times=times[inside],
            target_times_R=times[last],
            ratings=ratings[inside] if c.rating else None,
        )

    train = cut(2, 2, every_prefix=True)
    splits = (train, cut(1, 3, False), cut(0, 3, False))
    return source.finish(user_ids, items, splits)


def _split_fixed(config: Any, folder: Path) -> Data:
    """The three files `train`, `valid` and `test.inter` as they are.

    Each row is a user, a history (item ids separated by spaces) and a target.
    """
    c, source = config.data, _Source(config, folder)
    parts = [source.read(f"{name}.inter") for name in ("train", "valid", "test")]
    for table in parts:
        for column in (c.user, c.item, c.history):
            table.check_ids(column)
        if c.rating:
            table.check_numbers(c.rating, *c.rating_range)
    seen = [x for t in parts for x in (t.frame[c.item], _words(t.frame[c.history]))]
    items, item_path = source.items(pl.concat(seen))
    item_ids = items[c.item].to_numpy()
    for table in parts:
        table.check_known(c.item, item_ids, item_path)
        known = pl.element().is_in(pl.Series(item_ids).implode())
        lists = table.frame[c.history].str.split(" ")
        all_known = lists.list.eval((pl.element() == "") | known).list.all()
        table.reject(~all_known, c.history, f"has an item that is not in {item_path}")
        source.hide_users(table)
    user_ids = np.unique(pl.concat([t.frame[c.user] for t in parts]).to_numpy())

    def rows(frame: pl.DataFrame) -> Rows:
        words = (
            frame[c.history]
            .str.split(" ")
            .list.eval(pl.element().filter(pl.element() != ""))
        )
        lengths = words.list.len().cast(pl.Int64).to_numpy()
        ratings = np.full(len(frame), np.nan)
        if c.rating:
            ratings = frame[c.rating].to_numpy()
        return Rows(
            np.searchsorted(user_ids, frame[c.user].to_numpy()),
            _look_up(_words(frame[c.history]), item_ids),
            np.concatenate([[0], np.cumsum(lengths)]),
            _look_up(frame[c.item], item_ids),
            ratings,
        )

    train, valid, test = (rows(table.frame) for table in parts)
    return source.finish(user_ids, items, (train, valid, test))


SPLITS: dict[str, Callable[[Any, Path], Data]] = {
    "leave_one_out": _split_leave_one_out,
    "fixed": _split_fixed,
}


class _Source:
    """The tables of a data set as they are read, and what came of their rows."""

    def __init__(self, config: Any, folder: Path):
        self.config, self.folder = config, folder
        self.tables: list[tables.Table] = []

    def read(self, kind: str) -> tables.Table:
        """One table: `inter`, `item`, ..."""
        c = self.config.data
        path = tables.find_table(self.folder, c.stem, kind, c.format)
        table = tables.read_table(path, c.format, strict=c.strict)
        self.tables.append(table)
        return table

    def described(self, kind: str, key: str) -> tables.Table:
        """A table with one row per value of `key`, all columns as strings."""
        table = self.read(kind)
        table.check_ids(key)
        table.check_distinct([key], "stands there twice")
        if not len(table):
            raise UserError(f"{table.path}: no rows")
        table.frame = table.as_texts()
        return table

    def items(self, seen: pl.Series) -> tuple[pl.DataFrame, Path | None]:
        """The item table, or the distinct ids of the interactions if there is none."""
        c = self.config.data
        if not c.item_table:
            ids = np.unique(seen.filter(seen != "").to_numpy())
            return pl.DataFrame({c.item: ids}), None
        table = self.described("item", c.item)
        return table.frame, table.path

    def users(self, user_ids: np.ndarray) -> tuple[pl.DataFrame, int]:
        """The user table in the order of `user_ids`, or these where there is none.

        And how many users it does not have; "" stands in all their columns.
        """
        c = self.config.data
        frame = pl.DataFrame({c.user: user_ids})
        if not c.user_table:
            return frame, 0
        table = self.described("user", c.user)
        self.hide_users(table)
        missing = sorted(set(user_ids) - set(table.frame[c.user].to_numpy()))
        if c.strict and missing:
            raise UserError(
                f"{table.path}: no user {missing[0]!r} (and {len(missing) - 1} more)"
            )
        joined = frame.join(table.frame, on=c.user, how="left", maintain_order="left")
        return joined.fill_null(""), len(missing)

    def hide_users(self, table: tables.Table) -> None:
        """Replaces user ids by their keyed hashes where the config names a key."""
        if path := self.config.data.user_key:
            table.hash_ids(self.config.data.user, sources.read_key(Path(path)))

    def finish(
        self, user_ids: np.ndarray, items: pl.DataFrame, splits: tuple[Rows, Rows, Rows]
    ) -> Data:
        """The data set, its protocol and what became of every row."""
        c, names = self.config.data, ("train", "valid", "test")
        for name, rows in zip(names, splits, strict=True):
            if not len(rows):
                raise UserError(f"data.split: {c.split} leaves {name} empty")
        protocol = {
            "files": {t.path.name: sources.sha256(t.path) for t in self.tables},
            "columns": [c.user, c.item, c.time if c.split != "fixed" else c.history],
            "split": c.split,
            "history": c.history_length,
            "mask_seen": self.config.eval.mask_seen,
            "candidates": "all items",
            "ties": "against the model",
        }
        if c.split != "fixed":
            protocol["order"] = "time, then file order" if c.time else "file order"
        if c.rating and self.config.eval.like_threshold:
            protocol["like"] = f"{c.rating} >= {self.config.eval.like_threshold:g}"
        if given := sorted(row[:4] for table in self.tables for row in table.rejected):
            protocol["rejected"] = given
        # What the user table holds changes no metric.
        users, undescribed = self.users(user_ids)
        rejected = [row for table in self.tables for row in table.rejected]
        if c.user_key:
            rejected = [(*row[:-1], "") for row in rejected]
        return Data(
            user_ids,
            items[c.item].to_numpy(),
            users,
            items,
            *splits,
            protocol,
            fingerprint(protocol),
            {t.path.name: (t.rows_in, len(t)) for t in self.tables},
            pl.DataFrame(rejected, schema=tables.REJECTED, orient="row"),
            undescribed,
        )


def _words(lists: pl.Series) -> pl.Series:
    """All words of a column, one after another."""
    words = lists.str.split(" ").explode()
    return words.filter(words != "")


def _look_up(names: pl.Series, item_ids: np.ndarray) -> np.ndarray:
    """Item names, all of them known -> catalogue rows."""
    places = dict(zip(item_ids.tolist(), range(len(item_ids)), strict=True))
    return names.replace_strict(places, return_dtype=pl.Int32).to_numpy()
