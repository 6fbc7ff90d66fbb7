"""Writes what a model knows and what a store has received as a data set to train on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recjax.inference.item_encoder import NEW
from recjax.inference.model import Model
from recjax.inference.parts import EVENTS, ITEM, STATE, TEXT, TITLE, make_item_table
from recjax.serving.cursor import read_cursor
from recjax.serving.store import DELETED, Event, Store, StoredItem, apply_events

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
      store: the identity of the store.
      items: items that were added or changed, without those that were deleted.
    """

    events: list[Event]
    last: int
    store: str
    items: list[StoredItem]


def read_feedback(model: Model, store: Store) -> Feedback:
    """Reads the events after the model's cursor, and all stored items.

    Raises:
      UserError: the store has lost events that the model knows.
      StoreError: the store cannot be read.
    """
    last = read_cursor(model, store)
    events: list[Event] = []
    while page := store.events(last, PAGE).result():
        events += page
        last = page[-1].sequence
    stored = store.items().result()
    items = [item for item in stored if item.text and item.state != DELETED]
    return Feedback(events, last, store.identity().result(), items)


def with_stored_items(model: Model, items: Sequence[StoredItem]) -> Model:
    """Returns a model with the items and the texts of a store, as a service has them.

    An item whose text has changed keeps its id vector and its bias.
    """
    if not items:
        return model
    parts = model.parts
    row_of = {name: row for row, name in enumerate(parts.items[ITEM])}
    texts, titles = parts.items[TEXT].to_list(), parts.items[TITLE].to_list()
    changed, new = [], []
    for item in items:
        row = row_of.get(item.id)
        if row is None:
            new.append(item)
            continue
        titles[row] = item.title
        if texts[row] != item.text:
            texts[row] = item.text
            changed.append(row)
    ids, events, states = (parts.items[x].to_list() for x in (ITEM, EVENTS, STATE))
    table = make_item_table(ids, titles, texts, events, states)
    vectors = parts.vectors
    if changed:
        rows = np.array(changed)
        trained = np.where(rows < parts.num_trained, rows, NEW)
        found = model.item_encoder.encode([texts[row] for row in changed], trained)
        vectors = replace(
            vectors,
            history_NxD=_with_rows(vectors.history_NxD, rows, found.history_NxD),
            candidates_NxD=_with_rows(
                vectors.candidates_NxD, rows, found.candidates_NxD
            ),
            bias_N=_with_rows(vectors.bias_N, rows, found.bias_N),
        )
    model = Model(replace(parts, items=table, vectors=vectors))
    if new:
        model.add_titled_items(
            [x.id for x in new], [x.text for x in new], [x.title for x in new]
        )
    return model


def _with_rows(array: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns a copy of an array with other rows."""
    out = array.copy()
    out[rows] = values
    return out


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
        before = model.ids.history_ids(user), model.ids.history_times(user).tolist()
        found = apply_events(*before, by_user.get(user, []))
        histories[user] = [(x.item, x.sequence) for x in found if x.item in known]
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
