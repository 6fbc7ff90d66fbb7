"""Writes what a model knows and what a store has received as a data set to train on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recjax.inference.model import Model
from recjax.inference.parts import ITEM, TEXT, TITLE
from recjax.serving.store import CURSOR, Event, Store, StoredItem, apply_events

PREFIX = "feedback"  # start of the names of the files
USER, TIME = "user", "time"
# Times of new events follow those of all earlier ones, which are positions.
FIRST_TIME = 10_000_000
PAGE = 10_000  # events that are read at a time


class Feedback(NamedTuple):
    """What a store has received since a model was made.

    Attributes:
      events: in order of arrival.
      last: sequence of the newest one; the model's own cursor if there is none.
      items: items that were added or changed.
    """

    events: list[Event]
    last: int
    items: list[StoredItem]


def read_feedback(model: Model, store: Store) -> Feedback:
    """Reads the events after the model's cursor, and all stored items.

    Raises:
      StoreError: the store cannot be read.
    """
    last = int(model.parts.about.get(CURSOR, 0))
    events: list[Event] = []
    while page := store.events(last, PAGE).result():
        events += page
        last = page[-1].sequence
    items = [item for item in store.items().result() if item.text]
    return Feedback(events, last, items)


def add_stored_items(model: Model, items: Sequence[StoredItem]) -> None:
    """Adds the items of a store that a model does not have."""
    known = set(model.items[ITEM])
    new = {item.id: item for item in items if item.id not in known}
    if new:
        texts = [item.text for item in new.values()]
        titles = [item.title for item in new.values()]
        model.add_titled_items(list(new), texts, titles)


def dated_histories(
    model: Model, feedback: Feedback
) -> dict[str, list[tuple[str, int]]]:
    """Returns the history of every user after the feedback.

    Returns:
      By user, the known items with the sequence of their event; 0 before the cursor.
    """
    by_user: dict[str, list[Event]] = {}
    for event in feedback.events:
        by_user.setdefault(event.user, []).append(event)
    known = set(model.items[ITEM])
    histories = {}
    for user in dict.fromkeys([*model.users, *by_user]):
        found = apply_events(model.ids.history_ids(user), by_user.get(user, []))
        histories[user] = [(item, number) for item, number in found if item in known]
    return histories


def write_dataset(
    model: Model, histories: Mapping[str, Sequence[tuple[str, int]]], folder: Path
) -> int:
    """Writes interactions and items as Parquet files.

    Events before the cursor have their positions as times, new ones their sequences.

    Args:
      model: the model, with the stored items added.
      histories: as `dated_histories` returns them.
      folder: an existing directory for the files.

    Returns:
      The number of new interactions.
    """
    rows = [
        (user, item, FIRST_TIME + number if number else position, number > 0)
        for user, history in histories.items()
        for position, (item, number) in enumerate(history)
    ]
    item_column = model.parts.config.data.item
    schema = {
        USER: pl.String,
        item_column: pl.String,
        TIME: pl.Int64,
        "new": pl.Boolean,
    }
    table = pl.DataFrame(rows, schema=schema, orient="row").unique(maintain_order=True)
    table.drop("new").write_parquet(folder / f"{PREFIX}.inter.parquet")
    items = model.items.select(pl.col(ITEM).alias(item_column), TEXT, TITLE)
    items.write_parquet(folder / f"{PREFIX}.item.parquet")
    return int(table["new"].sum())
