"""Finds items, users and their histories by the ids of the files."""

import functools
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.data.batching.times import unknown_times
from recjax.data.ingest.tables import TIME_TYPES, to_seconds
from recjax.inference.frames import is_frame, to_polars
from recjax.inference.inputs import as_list, id_column, id_list, show
from recjax.inference.parts import ITEM, ITEMS, TIMES, USER, ModelParts

NUM_NAMED = 5  # unknown ids that an error names


class HistoryQueries(NamedTuple):
    """Histories to make lists for.

    Attributes:
      names: of the queries.
      histories: item indices, oldest first.
      times: of their events in seconds, as floats; NaN where unknown.
      label: the column of the names.
    """

    names: list[Any]
    histories: list[np.ndarray]
    times: list[np.ndarray]
    label: str


class IdIndex:
    """The items and users of a model, by their ids.

    Args:
      parts: the model.
    """

    def __init__(self, parts: ModelParts):
        self._parts = parts

    @functools.cached_property
    def item_ids(self) -> list[str]:
        """The ids of the items, by item index."""
        return self._parts.items[ITEM].to_list()

    @functools.cached_property
    def item_index(self) -> dict[str, int]:
        """The item indices, by id."""
        return {name: index for index, name in enumerate(self.item_ids)}

    @functools.cached_property
    def _user_rows(self) -> dict[str, int]:
        histories = self._parts.histories
        names = [] if histories is None else histories[USER].to_list()
        return {name: row for row, name in enumerate(names)}

    @property
    def users(self) -> list[str]:
        """The users whose histories the model has."""
        return list(self._user_rows)

    def items(self, ids: Any, name: str = "items") -> np.ndarray:
        """Returns the indices of items.

        Args:
          ids: their ids.
          name: the argument that has them, for errors.

        Raises:
          UserError: there is no such item.
        """
        names = id_list(ids, name)
        _check_known(names, self.item_index, name, "item", "in the catalogue")
        return np.array([self.item_index[name] for name in names], np.int64)

    def known_items(self, history: Any, name: str = "histories") -> np.ndarray:
        """Returns the indices of a history's items, without those that are unknown.

        Args:
          history: ids of items, oldest first.
          name: the argument that has it, for errors.

        Raises:
          UserError: not a list of ids.
        """
        if isinstance(history, str):
            raise UserError(f"{name}: {show(history)} is not a list of item ids")
        return self._known(id_list(history, name))

    def _known(self, names: Sequence[str]) -> np.ndarray:
        """Returns the indices of items by ids that are checked already."""
        found = map(self.item_index.get, names)
        return np.array([index for index in found if index is not None], np.int64)

    def check_histories(self) -> None:
        """Checks that the model has histories of users.

        Raises:
          UserError: it has none.
        """
        if self._parts.histories is None:
            raise UserError(
                "users: this model has no histories of users (report.keep_histories is "
                "off); give histories"
            )

    def history(self, user: Any) -> np.ndarray:
        """Returns the item indices of a user's history, oldest first.

        Raises:
          UserError: the model has no history of this user.
        """
        self.check_histories()
        row = self._user_rows.get(str(user))
        if row is None:
            raise UserError(f"users: no user {str(user)!r} in the model")
        assert self._parts.histories is not None
        return self._parts.histories[ITEMS][row].to_numpy()

    def history_times(self, user: str) -> np.ndarray:
        """Returns the times of a user's history in seconds; NaN where unknown."""
        row, histories = self._user_rows.get(user), self._parts.histories
        if row is None or histories is None:
            return np.zeros(0)
        if TIMES not in histories.columns:
            return np.full(len(histories[ITEMS][row]), np.nan)
        return histories[TIMES][row].to_numpy()

    def history_ids(self, user: str) -> list[str]:
        """Returns the item ids of a user's history; none for an unknown user."""
        if user not in self._user_rows:
            return []
        return [self.item_ids[index] for index in self.history(user)]

    def queries(self, users: Any, histories: Any) -> HistoryQueries:
        """Returns the histories of users, or those of the caller.

        Args:
          users, histories: as in `Model.recommend`; exactly one of them.

        Raises:
          UserError: both or none of them, or unknown users.
        """
        if (users is None) == (histories is None):
            raise UserError("give either users or histories")
        if users is not None:
            self.check_histories()
            everyone = isinstance(users, str) and users == "all"
            names = self.users if everyone else id_list(users, "users")
            _check_known(names, self._user_rows, "users", "user", "in the model")
            rows = [self.history(name) for name in names]
            times = [self.history_times(name) for name in names]
            return HistoryQueries(names, rows, times, "user")
        if is_frame(histories):
            data = self._parts.config.data
            grouped = group_by_user(to_polars(histories, "histories"), data)
            rows = [self._known(x) for x in grouped.items]
            times = [
                x[[name in self.item_index for name in ids]]
                for x, ids in zip(grouped.times, grouped.items, strict=True)
            ]
            return HistoryQueries(grouped.users, rows, times, "user")
        if isinstance(histories, str):
            raise UserError(f"histories: {show(histories)} is not a list of histories")
        found = [
            self.known_items(history, f"histories[{number}]")
            for number, history in enumerate(as_list(histories, "histories"))
        ]
        numbers = list(range(len(found)))
        return HistoryQueries(numbers, found, unknown_times(found), "query")


def _check_known(
    names: Sequence[str], known: Container[str], argument: str, kind: str, where: str
) -> None:
    """Checks that all ids are known.

    Raises:
      UserError: counts those that are not, and names the first of them.
    """
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if len(unknown) == 1:
        raise UserError(f"{argument}: no {kind} {unknown[0]!r} {where}")
    if unknown:
        first = ", ".join(map(repr, unknown[:NUM_NAMED]))
        more = ", ..." if len(unknown) > NUM_NAMED else ""
        raise UserError(
            f"{argument}: {len(unknown):,} {kind}s are not {where}: {first}{more}"
        )


class GroupedEvents(NamedTuple):
    """Users with the ids and times of their events; times are NaN where unknown."""

    users: list[str]
    items: list[list[str]]
    times: list[np.ndarray]


def group_by_user(frame: pl.DataFrame, data: Any) -> GroupedEvents:
    """Returns the users of a table of interactions, and their events by time.

    Args:
      frame: the table.
      data: the section `data` of the config, which names the columns.

    Raises:
      UserError: a column is missing, an id is, or a value is no time.
    """
    name = "histories"
    events = {
        "user": id_column(frame, data.user, name),
        "item": id_column(frame, data.item, name),
    }
    if data.time and data.time in frame.columns:
        events["time"] = _time_column(frame[data.time], name)
    table = pl.DataFrame(events)
    if "time" in events:
        table = table.sort("time", maintain_order=True)
    else:
        table = table.with_columns(time=pl.lit(np.nan))
    grouped = table.group_by("user", maintain_order=True).agg("item", "time")
    times = [x.to_numpy() for x in grouped["time"]]
    return GroupedEvents(grouped["user"].to_list(), grouped["item"].to_list(), times)


def _time_column(values: pl.Series, name: str) -> pl.Series:
    """Returns a column of times in seconds; none is missing."""
    if not (values.dtype.is_numeric() or values.dtype in (*TIME_TYPES, pl.Null)):
        raise UserError(
            f"{name}: {values.name} is of type {values.dtype}, which is no time"
        )
    seconds = to_seconds(values).cast(pl.Float64)
    (bad,) = np.nonzero(~seconds.is_finite().fill_null(False).to_numpy())
    if len(bad):
        row = int(bad[0])
        problem = f"{values.name} is {values[row]!r}, which is no time"
        raise UserError(f"{name}: row {row + 1}: {problem}")
    return seconds
