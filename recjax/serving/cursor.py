"""The last event of a store that a model's histories have."""

from typing import Any

from recjax.common.errors import UserError
from recjax.inference.model import Model
from recjax.inference.parts import CURSOR, STORE
from recjax.serving.store import Store


def read_cursor(model: Model, store: Store) -> int:
    """Returns the sequence up to which a model's histories have a store's events.

    Returns:
      The sequence; 0 for a model that knows no event of this store.

    Raises:
      UserError: the store has lost events that the model knows.
      StoreError: the store cannot be read.
    """
    about = model.parts.about
    if about.get(STORE) != store.identity().result():
        return 0
    cursor, last = int(about.get(CURSOR, 0)), store.last_sequence().result()
    if cursor > last:
        raise UserError(
            f"the store has {last:,} events, but the model has learned from {cursor:,} "
            "of them: is this an older copy of the store?"
        )
    return cursor


def cursor_entries(cursor: int, store: Store) -> dict[str, Any]:
    """Returns the entries of `about` for a model with a store's events up to one."""
    return {CURSOR: cursor, STORE: store.identity().result()}
