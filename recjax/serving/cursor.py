"""The last event of a store that a model's histories include."""

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
    about, identity = model.parts.about, store.identity().result()
    # A model of an earlier version does not name its store.
    if about.get(STORE, identity) != identity:
        return 0
    cursor, last = int(about.get(CURSOR, 0)), store.last_sequence().result()
    if cursor > last:
        raise UserError(
            f"the store has {last:,} events, but the model has learned from {cursor:,} "
            "of them: is this an older copy of the store?"
        )
    return cursor
