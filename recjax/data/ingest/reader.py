"""Reads the tables of a data set into checked events, items and users.

Everything that can change the meaning of a metric goes into the protocol, whose hash is
the fingerprint in results and tables. Changes to this code must therefore keep its keys
and values.
"""

import hmac
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.common.files import sha256, user_path
from recjax.data.dataset import Data, Examples
from recjax.data.ingest.formats import SUFFIXES, read_table
from recjax.data.ingest.tables import REJECTED, Table, count_reasons

DUPLICATE = "appears twice"
# Reasons of rejected rows whose wording in the protocol differs from the messages.
REASON_IN_PROTOCOL = {DUPLICATE: "stands there twice"}


@dataclass(frozen=True)
class Events:
    """All events of V users, grouped by user and in order of time."""

    user_ids: np.ndarray
    bounds: np.ndarray  # V + 1 bounds of the users' events
    items: np.ndarray  # item indices
    times: np.ndarray  # in seconds; without times, the order in the file
    ratings: np.ndarray | None  # None if the data has none

    def cut(
        self, users_R: np.ndarray, ends_R: np.ndarray, all_positions: bool
    ) -> Examples:
        """Makes examples: the event at each end is the target, all before it history.

        `all_positions` as in `Examples`.
        """
        unknown_R = np.full(len(ends_R), np.nan)
        return Examples(
            users_R.astype(np.int32),
            self.items,
            self.bounds[users_R],
            ends_R,
            targets_R=self.items[ends_R],
            ratings_R=unknown_R if self.ratings is None else self.ratings[ends_R],
            all_positions=all_positions,
            times=self.times,
            target_times_R=self.times[ends_R],
            ratings=self.ratings,
        )


@dataclass
class Reader:
    """Reads the tables of a data set and records which of their rows are used."""

    config: Any  # the complete config
    folder: Path
    tables: list[Table] = field(default_factory=list)  # read so far
    left_out: dict[str, int] = field(default_factory=dict)  # see `Data`
    # Entries that splits and filters add; `make_data` adds all others.
    protocol: dict[str, Any] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # see `Data`
    test_examples_in_train: int = 0  # see `Data`

    def read(self, kind: str) -> Table:
        """Reads the table of a kind: `inter`, `item`, ..."""
        data = self.config.data
        prefix = data.file_prefix or self.folder.resolve().name
        path = self.folder / f"{prefix}.{kind}{SUFFIXES[data.format]}"
        table = read_table(path, data.format)
        names = ("user", "item", "time", "rating", "history")
        table.keys = {data[name]: f"data.{name}" for name in names}
        self.tables.append(table)
        return table

    def events(self) -> tuple[Events, pl.DataFrame]:
        """Returns the checked and filtered interactions, and the catalogue."""
        data = self.config.data
        table, items = self._checked_events()
        frame = self._filter(table.frame)
        if data.k_core:
            # Items that were filtered out are no candidates either.
            left = frame[data.item].unique().implode()
            items = items.filter(pl.col(data.item).is_in(left))
        # Sorted ids: indices do not depend on the order of the file.
        user_ids, users = np.unique(frame[data.user].to_numpy(), return_inverse=True)
        times = np.arange(len(frame), dtype=float)
        if data.time:
            times = frame[data.time].to_numpy()
        order = np.lexsort((times, users))  # stable: ties keep the order of the file
        self.protocol["order"] = "time, then file order" if data.time else "file order"
        return Events(
            user_ids,
            np.append(0, np.cumsum(np.bincount(users))),
            item_indices(frame[data.item], items[data.item])[order],
            times[order],
            frame[data.rating].to_numpy()[order] if data.rating else None,
        ), items

    def _checked_events(self) -> tuple[Table, pl.DataFrame]:
        """Reads the interactions and the catalogue, and checks every row."""
        data = self.config.data
        table = self.read("inter")
        table.check_ids(data.user)
        table.check_ids(data.item)
        if data.time:
            table.check_times(data.time)
        if data.rating:
            table.check_numbers(data.rating, *data.rating_range)
        if not len(table):
            self.check_rows(table, "no interactions")
        items, item_path = self.items(table.frame[data.item])
        table.check_known(data.item, items[data.item], item_path)
        if not len(table):
            example = table.rejected[-1].value
            raise UserError(
                f"{table.path}: no interaction with a known item; {data.item} is "
                f"{example!r} here, and {items[data.item][0]!r} in {item_path}; write "
                "the ids alike in both files"
            )
        if data.time:  # without times, a repeated pair is a repeated purchase
            event = [data.user, data.item, data.time]
            table.check_distinct(event, "the same event again")
        self.check_rows(table, "no interactions")
        self.hide_users(table)  # last: messages name users by their ids in the file
        return table, items

    def check_rows(self, table: Table, problem: str) -> None:
        """Refuses bad rows in strict mode, and a table in which no row is left.

        Args:
          table: a table whose rows were checked.
          problem: what is wrong with a table without rows.
        """
        if self.config.data.strict:
            table.refuse_bad_rows()
        if not len(table):
            counted = count_reasons(table.rejected)
            reasons = f" left: {counted}" if counted else ""
            raise UserError(f"{table.path}: {problem}{reasons}")

    def _filter(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Applies `data.min_rating` and `data.k_core`."""
        data, size = self.config.data, len(frame)
        if data.min_rating:
            frame = frame.filter(pl.col(data.rating) >= data.min_rating)
            self.protocol["min_rating"] = f"{data.rating} >= {data.min_rating:g}"
        if data.k_core:
            # Removing users can leave items with too few events, and vice versa.
            before = -1
            while before != len(frame):
                before = len(frame)
                for column in (data.user, data.item):
                    frame = frame.filter(pl.len().over(column) >= data.k_core)
            self.protocol["k_core"] = data.k_core
        if frame.is_empty():
            problem = "no event is left; lower them"
            raise UserError(f"data.min_rating, data.k_core: {problem}")
        self.count_left_out("events filtered out", size - len(frame))
        return frame

    def _read_by_id(self, kind: str, key: str) -> Table:
        """Reads a table whose `key` identifies a row; all columns become strings."""
        table = self.read(kind)
        table.check_ids(key)
        table.check_distinct([key], DUPLICATE)
        problem = f"no rows; set data.{kind}_table=False to do without it"
        self.check_rows(table, problem)
        table.frame = table.as_texts()
        return table

    def items(self, used: pl.Series) -> tuple[pl.DataFrame, Path | None]:
        """Returns the item table and its path; without one, the distinct `used` ids."""
        data = self.config.data
        if not data.item_table:
            return pl.DataFrame({data.item: used.unique().sort()}), None
        table = self._read_by_id("item", data.item)
        self.unreadable = table.unreadable
        return table.frame, table.path

    def users(self, user_ids: np.ndarray) -> pl.DataFrame:
        """Returns the user table in the order of `user_ids`; without one, only the ids.

        Users that it lacks are counted and have "" in all columns.
        """
        data = self.config.data
        frame = pl.DataFrame({data.user: user_ids})
        if not data.user_table:
            return frame
        table = self._read_by_id("user", data.user)
        self.hide_users(table)
        missing = sorted(set(user_ids) - set(table.frame[data.user]))
        if data.strict and missing:
            raise UserError(
                f"{table.path}: no user {missing[0]!r} (and {len(missing) - 1} more); "
                "add them, or set data.strict=False"
            )
        self.count_left_out(f"users not in {table.path.name}", len(missing))
        joined = frame.join(
            table.frame, on=data.user, how="left", maintain_order="left"
        )
        return joined.fill_null("")

    def count_left_out(self, description: str, count: int) -> None:
        """Counts events, users or examples that are not used."""
        if count:
            self.left_out[description] = self.left_out.get(description, 0) + count

    def hide_users(self, table: Table) -> None:
        """Replaces user ids by keyed hashes if `data.user_key` is set."""
        if self.config.data.user_key:
            table.hash_ids(self.config.data.user, self._user_key())

    def _user_key(self) -> bytes:
        """Reads the secret key in the file `data.user_key`."""
        path = user_path(self.config.data.user_key, "data.user_key")
        try:
            key = path.read_bytes().strip()
        except OSError as e:
            raise UserError(f"data.user_key: {path}: {e.strerror}") from None
        if len(key) < 16:
            problem = f"has {len(key)} bytes; it needs at least 16"
            raise UserError(f"data.user_key: {path}: {problem}")
        return key

    def make_data(
        self,
        user_ids: np.ndarray,
        items: pl.DataFrame,
        splits: tuple[Examples, Examples, Examples],
        held_out_N: np.ndarray,
    ) -> Data:
        """Makes the data set from its splits and from everything read so far."""
        data = self.config.data
        for name, examples in zip(("train", "valid", "test"), splits, strict=True):
            if not len(examples):
                raise UserError(
                    f"data.split: {data.split} leaves {name} empty; choose another "
                    "split, or data with more events per user"
                )
        # Before the user table is read: only subgroups of users depend on it, so its
        # hash and its rejected rows are not part of the protocol.
        protocol = self._protocol()
        users = self.users(user_ids)
        rejected = [row for table in self.tables for row in table.rejected_rows()]
        if data.user_key:  # values and texts contain user ids
            rejected = [(*row[:-2], "", "") for row in rejected]
        return Data(
            user_ids,
            items[data.item].to_numpy(),
            users,
            items,
            *splits,
            protocol,
            # Sorted, so that the order in which keys were added does not matter.
            fingerprint=sha256(json.dumps(protocol, sort_keys=True))[:12],
            row_counts={t.path.name: (t.num_rows, len(t)) for t in self.tables},
            rejected=pl.DataFrame(rejected, schema=REJECTED, orient="row"),
            left_out=self.left_out,
            held_out_N=held_out_N,
            unreadable=self.unreadable,
            test_examples_in_train=self.test_examples_in_train,
        )

    def _protocol(self) -> dict[str, Any]:
        """Everything that can change the meaning of a metric."""
        data, evaluation = self.config.data, self.config.eval
        order = data.history if data.split == "fixed" else data.time
        candidates = "all items"
        if size := evaluation.candidates:
            candidates = f"{size} drawn for each target by seed {data.split_seed}"
        protocol = {
            "files": {t.path.name: t.sha256 for t in self.tables},
            "columns": [data.user, data.item, order],
            "split": data.split,
            "history": data.history_length,
            "mask_seen": evaluation.mask_seen,
            "candidates": candidates,
            "ties": "against the model",  # items with the target's score rank above it
            **self.protocol,
        }
        if data.rating and evaluation.like_threshold:
            protocol["like"] = f"{data.rating} >= {evaluation.like_threshold:g}"
        if rejected := sorted(
            (
                table.path.name,
                row.number,
                row.column,
                REASON_IN_PROTOCOL.get(row.reason, row.reason),
            )
            for table in self.tables
            for row in table.rejected
        ):
            digest = sha256(json.dumps(rejected))[:12]
            protocol["rejected"] = f"{len(rejected)} rows, {digest}"
        if data.user_key and (data.split == "user" or evaluation.candidates):
            # Random draws depend on the order of users, which is that of the hashes.
            mac = hmac.digest(self._user_key(), b"protocol", "sha256")
            protocol["user_key"] = mac.hex()[:12]
        return protocol


def item_indices(ids: pl.Series, item_ids: pl.Series) -> np.ndarray:
    """Index of each id in `item_ids`, which must contain all of them."""
    indices = range(len(item_ids))
    return ids.replace_strict(item_ids, indices, return_dtype=pl.Int32).to_numpy()
