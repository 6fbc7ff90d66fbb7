"""Writes what a model knows and what a store has received as a data set to train on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recjax.inference.model import Model
from recjax.inference.parts import ITEM, TEXT, TITLE
from recjax.serving.service import CURSOR, RETRACTION, apply_events
from recjax.serving.store import Event, Store, StoredItem

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


def write_dataset(model: Model, feedback: Feedback, folder: Path) -> int:
    """Writes interactions and items as Parquet files.

    Events of users before the cursor have their positions as times, new ones their
    sequences. A retraction removes all earlier events of its items.

    Args:
      model: the model, with the stored items added.
      feedback: what the store has received.
      folder: an existing directory for the files.

    Returns:
      The number of new interactions.
    """
    known = set(model.items[ITEM])
    by_user: dict[str, list[Event]] = {}
    for event in feedback.events:
        by_user.setdefault(event.user, []).append(event)
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    new = 0
    for user in dict.fromkeys([*model.users, *by_user]):
        events = by_user.get(user, [])
        retracted = {x for e in events if e.kind == RETRACTION for x in e.items}
        history = model.history_ids(user)
        before = [item for item in history if item not in retracted]
        users += [user] * len(before)
        items += before
        times += range(len(before))
        for index, event in enumerate(events):
            if event.kind == RETRACTION:
                continue
            later = {
                x for e in events[index + 1 :] if e.kind == RETRACTION for x in e.items
            }
            kept = [x for x in event.items if x in known and x not in later]
            users += [user] * len(kept)
            items += kept
            times += [FIRST_TIME + event.sequence] * len(kept)
            new += len(kept)
    data = model.parts.config.data
    interactions = {USER: users, data.item: items, TIME: np.array(times, np.int64)}
    pl.DataFrame(interactions).unique(maintain_order=True).write_parquet(
        folder / f"{PREFIX}.inter.parquet"
    )
    model.items.select(pl.col(ITEM).alias(data.item), TEXT, TITLE).write_parquet(
        folder / f"{PREFIX}.item.parquet"
    )
    return new


def new_histories(model: Model, feedback: Feedback) -> dict[str, list[str]]:
    """Returns the item ids of the histories of all users after the feedback."""
    by_user: dict[str, list[Event]] = {}
    for event in feedback.events:
        by_user.setdefault(event.user, []).append(event)
    known = set(model.items[ITEM])
    return {
        user: [
            item
            for item in apply_events(model.history_ids(user), by_user.get(user, []))
            if item in known
        ]
        for user in dict.fromkeys([*model.users, *by_user])
    }
