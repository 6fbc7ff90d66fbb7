"""Tables of a data set -> checked events and items, and what became of every row."""

import hmac
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.common.files import file_sha256, sha256
from recjax.data.dataset import Data, Examples, fingerprint
from recjax.data.ingest.sources import read_key
from recjax.data.ingest.tables import REJECTED, Table, find_table, read_table


@dataclass(frozen=True)
class Events:
    """All events, those of a user together and in the order of time.

    Attributes:
      user_ids: names of the V users.
      bounds: V + 1 bounds of each user's events.
      rows: catalogue row of each event.
      times: seconds, or places in the file where it has no times.
      ratings: NaN where the data has none.
      rated: whether it has.
    """

    user_ids: np.ndarray
    bounds: np.ndarray
    rows: np.ndarray
    times: np.ndarray
    ratings: np.ndarray
    rated: bool

    def cut(
        self,
        users_R: np.ndarray,
        starts_R: np.ndarray,
        ends_R: np.ndarray,
        *,
        all_positions: bool = False,
    ) -> Examples:
        """Rows whose target is the event at the end of a history."""
        return Examples(
            users_R=users_R.astype(np.int32),
            flat=self.rows,
            starts_R=starts_R,
            ends_R=ends_R,
            targets_R=self.rows[ends_R],
            ratings_R=self.ratings[ends_R],
            all_positions=all_positions,
            times=self.times,
            target_times_R=self.times[ends_R],
            ratings=self.ratings if self.rated else None,
        )


@dataclass
class Reader:
    """The tables of a data set as they are read.

    Attributes:
      config: the whole config.
      folder: where the tables lie.
      tables: those that were read.
      left_out: what else was not used, and how many of it.
      protocol: what splits and filters add to the protocol.
    """

    config: Any
    folder: Path
    tables: list[Table] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)

    def read(self, kind: str) -> Table:
        """One table: `inter`, `item`, ..."""
        c = self.config.data
        path = find_table(self.folder, c.file_prefix, kind, c.format)
        table = read_table(path, c.format, strict=c.strict)
        self.tables.append(table)
        return table

    def events(self) -> tuple[Events, pl.DataFrame]:
        """The interactions, checked and filtered, and the catalogue.

        Equal times keep the order of the file (a stable sort).
        """
        c = self.config.data
        table = self.read("inter")
        table.check_ids(c.user)
        table.check_ids(c.item)
        if c.time:
            table.check_times(c.time)
        if c.rating:
            table.check_numbers(c.rating, *c.rating_range)
        if not len(table):
            raise UserError(f"{table.path}: no interactions")
        items, item_path = self.items(table.frame[c.item])
        table.check_known(c.item, items[c.item], item_path)
        if not len(table):
            raise UserError(f"{table.path}: no interaction with a known item")
        if c.time:
            table.check_distinct([c.user, c.item, c.time], "the same event again")
        self.hide_users(table)

        frame = self._filter(table.frame)
        if c.k_core:
            left = frame[c.item].unique().implode()
            items = items.filter(pl.col(c.item).is_in(left))
        user_ids, users = np.unique(frame[c.user].to_numpy(), return_inverse=True)
        size = len(frame)
        times = frame[c.time].to_numpy() if c.time else np.arange(size, dtype=float)
        ratings = frame[c.rating].to_numpy() if c.rating else np.full(size, np.nan)
        rows = look_up(frame[c.item], items[c.item].to_numpy())
        order = np.lexsort((np.arange(size), times, users))
        bounds = np.concatenate([[0], np.cumsum(np.bincount(users))])
        events = Events(
            user_ids, bounds, rows[order], times[order], ratings[order], bool(c.rating)
        )
        self.protocol["order"] = "time, then file order" if c.time else "file order"
        return events, items

    def _filter(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Events with a rating that is high enough, of users and items with enough."""
        c, size = self.config.data, len(frame)
        if c.min_rating:
            frame = frame.filter(pl.col(c.rating) >= c.min_rating)
            self.protocol["min_rating"] = f"{c.rating} >= {c.min_rating:g}"
        if c.k_core:
            before = -1
            while before != len(frame):  # until none has to go
                before = len(frame)
                for column in (c.user, c.item):
                    frame = frame.filter(pl.len().over(column) >= c.k_core)
            self.protocol["k_core"] = c.k_core
        if frame.is_empty():
            raise UserError("data.min_rating, data.k_core: no event is left")
        if len(frame) < size:
            self.leave_out("events filtered out", size - len(frame))
        return frame

    def described(self, kind: str, key: str) -> Table:
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

    def users(self, user_ids: np.ndarray) -> pl.DataFrame:
        """The user table in the order of `user_ids`, or these where there is none.

        Users that it does not have are counted; "" stands in all their columns.
        """
        c = self.config.data
        frame = pl.DataFrame({c.user: user_ids})
        if not c.user_table:
            return frame
        table = self.described("user", c.user)
        self.hide_users(table)
        missing = sorted(set(user_ids) - set(table.frame[c.user].to_numpy()))
        if c.strict and missing:
            raise UserError(
                f"{table.path}: no user {missing[0]!r} (and {len(missing) - 1} more)"
            )
        if missing:
            self.leave_out(f"users not in {table.path.name}", len(missing))
        joined = frame.join(table.frame, on=c.user, how="left", maintain_order="left")
        return joined.fill_null("")

    def leave_out(self, what: str, count: int) -> None:
        """Counts what is not used."""
        if count:
            self.left_out[what] = self.left_out.get(what, 0) + count

    def hide_users(self, table: Table) -> None:
        """Replaces user ids by their keyed hashes where the config names a key."""
        if path := self.config.data.user_key:
            table.hash_ids(self.config.data.user, read_key(Path(path)))

    def finish(
        self,
        user_ids: np.ndarray,
        items: pl.DataFrame,
        splits: tuple[Examples, Examples, Examples],
        held_out_N: np.ndarray,
    ) -> Data:
        """The data set, its protocol and what became of every row."""
        c, e = self.config.data, self.config.eval
        for name, rows in zip(("train", "valid", "test"), splits, strict=True):
            if not len(rows):
                raise UserError(f"data.split: {c.split} leaves {name} empty")
        candidates = "all items"
        if e.candidates:
            candidates = f"{e.candidates} drawn for each target by seed {c.split_seed}"
        protocol = {
            "files": {t.path.name: file_sha256(t.path) for t in self.tables},
            "columns": [c.user, c.item, c.time if c.split != "fixed" else c.history],
            "split": c.split,
            "history": c.history_length,
            "mask_seen": e.mask_seen,
            "candidates": candidates,
            "ties": "against the model",
            **self.protocol,
        }
        if c.rating and e.like_threshold:
            protocol["like"] = f"{c.rating} >= {e.like_threshold:g}"
        if given := sorted(row[:4] for t in self.tables for row in t.rejected):
            short = sha256(json.dumps(given))[:12]
            protocol["rejected"] = f"{len(given)} rows, {short}"
        if c.user_key and (c.split == "user" or e.candidates):
            # The order of the users, by which is drawn, is that of their hashes.
            key = read_key(Path(c.user_key))
            digest = hmac.digest(key, b"protocol", "sha256")
            protocol["user_key"] = digest.hex()[:12]
        users = self.users(user_ids)  # decides about groups of users alone
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
            pl.DataFrame(rejected, schema=REJECTED, orient="row"),
            self.left_out,
            held_out_N,
        )


def words(lists: pl.Series) -> pl.Series:
    """All words of a column, one after another."""
    each = lists.str.split(" ").explode()
    return each.filter(each != "")


def look_up(names: pl.Series, item_ids: np.ndarray) -> np.ndarray:
    """Item names, all of them known -> catalogue rows."""
    places = dict(zip(item_ids.tolist(), range(len(item_ids)), strict=True))
    return names.replace_strict(places, return_dtype=pl.Int32).to_numpy()
