"""What is trained on and what is asked: splits, and the protocol's fingerprint."""

import hashlib
import json
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

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self.item_ids)

    def render(self, template: str) -> list[str]:
        """Fills the template's `{column}` fields for every item.

        Raises:
          UserError: a field that is no column of the item table.
        """
        try:
            return [template.format(**row) for row in self.items.iter_rows(named=True)]
        except (LookupError, ValueError, TypeError, AttributeError) as e:
            raise UserError(
                f"template {template!r}: {e} does not fit; the item table has "
                f"{', '.join(self.items.columns)}"
            ) from None


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
    c = config.data
    path = tables.find_table(folder, c.stem, "inter", c.format)
    table = tables.read_table(path, c.format)
    user_ids, users = np.unique(tables.texts(table, c.user, path), return_inverse=True)
    item_names = tables.texts(table, c.item, path)
    times = tables.times(table, c.time, path) if c.time else np.arange(len(table))
    ratings = np.full(len(table), np.nan)
    if c.rating:
        ratings = tables.numbers(table, c.rating, path)
    if not len(table):
        raise UserError(f"{path}: no interactions")

    items, item_path = _read_items(config, folder, item_names)
    item_ids = items[c.item].to_numpy()
    rows = _look_up(item_names, item_ids, path, item_path)
    order = np.lexsort((np.arange(len(table)), times, users))
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
    return _finish(
        config,
        folder,
        files=[path, item_path],
        user_ids=user_ids,
        items=items,
        splits=(train, cut(1, 3, False), cut(0, 3, False)),
    )


def _split_fixed(config: Any, folder: Path) -> Data:
    """The three files `train`, `valid` and `test.inter` as they are.

    Each row is a user, a history (item ids separated by spaces) and a target.
    """
    c = config.data
    paths, parts = [], []
    for name in ("train", "valid", "test"):
        path = tables.find_table(folder, c.stem, f"{name}.inter", c.format)
        table = tables.read_table(path, c.format)
        tables.require(table, [c.user, c.history, c.item], path)
        paths.append(path)
        parts.append(table)
    user_ids = np.unique(
        np.concatenate(
            [tables.texts(t, c.user, p) for t, p in zip(parts, paths, strict=True)]
        )
    )
    seen = [
        np.array(" ".join(tables.texts(t, column, p)).split())
        for t, p in zip(parts, paths, strict=True)
        for column in (c.history, c.item)
    ]
    items, item_path = _read_items(config, folder, np.concatenate(seen))
    item_ids = items[c.item].to_numpy()

    def read(table: pl.DataFrame, path: Path) -> Rows:
        lists = [text.split() for text in tables.texts(table, c.history, path)]
        names = np.array([name for part in lists for name in part])
        flat = _look_up(names, item_ids, path, item_path)
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in lists])])
        ratings = np.full(len(table), np.nan)
        if c.rating:
            ratings = tables.numbers(table, c.rating, path)
        return Rows(
            np.searchsorted(user_ids, tables.texts(table, c.user, path)),
            flat,
            offsets,
            _look_up(tables.texts(table, c.item, path), item_ids, path, item_path),
            ratings,
        )

    train, valid, test = (read(t, p) for t, p in zip(parts, paths, strict=True))
    return _finish(
        config,
        folder,
        files=[*paths, item_path],
        user_ids=user_ids,
        items=items,
        splits=(train, valid, test),
    )


SPLITS: dict[str, Callable[[Any, Path], Data]] = {
    "leave_one_out": _split_leave_one_out,
    "fixed": _split_fixed,
}


def _read_items(
    config: Any, folder: Path, seen: np.ndarray
) -> tuple[pl.DataFrame, Path | None]:
    """The item table, or the distinct ids of the interactions where there is none."""
    c = config.data
    if not c.item_table:
        return pl.DataFrame({c.item: np.unique(seen)}), None
    path = tables.find_table(folder, c.stem, "item", c.format)
    return _read_described(path, c.format, c.item), path


def _read_users(config: Any, folder: Path, user_ids: np.ndarray) -> pl.DataFrame:
    """The user table in the order of `user_ids`, or these where there is none."""
    c = config.data
    if not c.user_table:
        return pl.DataFrame({c.user: user_ids})
    path = tables.find_table(folder, c.stem, "user", c.format)
    table = _read_described(path, c.format, c.user)
    names = table[c.user].to_numpy()
    if missing := sorted(set(user_ids) - set(names)):
        raise UserError(f"{path}: no user {missing[0]!r} (and {len(missing) - 1} more)")
    order = np.argsort(names)
    return table[order[np.searchsorted(names, user_ids, sorter=order)]]


def _read_described(path: Path, file_format: str, key: str) -> pl.DataFrame:
    """A table with one row per value of `key`, all columns as strings."""
    table = tables.read_table(path, file_format)
    values, counts = np.unique(tables.texts(table, key, path), return_counts=True)
    if not len(values):
        raise UserError(f"{path}: no rows")
    if (counts > 1).any():
        what, twice = key.removesuffix("_id"), values[counts > 1][0]
        raise UserError(f"{path}: {what} {twice!r} stands there twice")
    return table.select(pl.all().cast(pl.String).fill_null(""))


def _look_up(
    names: np.ndarray, item_ids: np.ndarray, path: Path, item_path: Path | None
) -> np.ndarray:
    """Item names -> catalogue rows."""
    order = np.argsort(item_ids)
    place = np.searchsorted(item_ids, names, sorter=order)
    rows = order[np.minimum(place, len(item_ids) - 1)]
    unknown = item_ids[rows] != names
    if unknown.any():
        first = names[unknown][0]
        raise UserError(
            f"{path}: item {first!r} (and {len(set(names[unknown])) - 1} more) "
            f"is not in {item_path}"
        )
    return rows.astype(np.int32)


def _finish(
    config: Any,
    folder: Path,
    *,
    files: list[Path | None],
    user_ids: np.ndarray,
    items: pl.DataFrame,
    splits: tuple[Rows, Rows, Rows],
) -> Data:
    for name, rows in zip(("train", "valid", "test"), splits, strict=True):
        if not len(rows):
            raise UserError(f"data.split: {config.data.split} leaves {name} empty")
    c = config.data
    protocol = {
        "files": {p.name: sources.sha256(p) for p in files if p},
        "columns": [c.user, c.item, c.time if c.split != "fixed" else c.history],
        "split": c.split,
        "history": c.history_length,
        "mask_seen": config.eval.mask_seen,
        "candidates": "all items",
        "ties": "against the model",
    }
    if c.split != "fixed":
        protocol["order"] = "time, then file order" if c.time else "file order"
    if c.rating and config.eval.like_threshold:
        protocol["like"] = f"{c.rating} >= {config.eval.like_threshold:g}"
    return Data(
        user_ids,
        items[c.item].to_numpy(),
        _read_users(config, folder, user_ids),
        items,
        *splits,
        protocol,
        fingerprint(protocol),
    )
