"""Finds items, users and their histories by the ids of the files."""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from recjax.common.errors import UserError
from recjax.inference.frames import group_by_user, is_frame, to_polars
from recjax.inference.parts import ITEM, ModelParts


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
        names = [] if histories is None else histories["user"].to_list()
        return {name: row for row, name in enumerate(names)}

    @property
    def users(self) -> list[str]:
        """The users whose histories the model has."""
        return list(self._user_rows)

    def items(self, ids: Iterable[Any]) -> np.ndarray:
        """Returns the indices of items.

        Raises:
          UserError: there is no such item.
        """
        names = [str(item) for item in ids]
        unknown = [name for name in names if name not in self.item_index]
        if unknown:
            raise UserError(f"items: no item {unknown[0]!r} in the catalogue")
        return np.array([self.item_index[name] for name in names], np.int64)

    def known_items(self, history: Any) -> np.ndarray:
        """Returns the indices of a history's items, without those that are unknown.

        Raises:
          UserError: a text instead of a list of ids.
        """
        if isinstance(history, str):
            raise UserError(f"histories: {history!r} is not a list of item ids")
        found = (self.item_index.get(str(item)) for item in history)
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
        return self._parts.histories["items"][row].to_numpy()

    def history_ids(self, user: str) -> list[str]:
        """Returns the item ids of a user's history; none for an unknown user."""
        if user not in self._user_rows:
            return []
        return [self.item_ids[index] for index in self.history(user)]

    def queries(
        self, users: Any, histories: Any
    ) -> tuple[list[Any], list[np.ndarray], str]:
        """Returns the names of queries, their histories, and the column of the names.

        Args:
          users, histories: as in `Model.recommend`; exactly one of them.

        Raises:
          UserError: both or none of them, or unknown users.
        """
        if (users is None) == (histories is None):
            raise UserError("give either users or histories")
        if users is not None:
            self.check_histories()
            if is_frame(users):
                raise UserError("users: is a table; give its column of users")
            if isinstance(users, str):
                names = self.users if users == "all" else [users]
            else:
                names = [str(user) for user in users]
            return names, [self.history(name) for name in names], "user"
        if is_frame(histories):
            data = self._parts.config.data
            names, histories = group_by_user(to_polars(histories), data)
            return names, [self.known_items(x) for x in histories], "user"
        found = [self.known_items(history) for history in histories]
        return list(range(len(found))), found, "query"
