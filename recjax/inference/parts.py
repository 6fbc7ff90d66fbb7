"""What a saved model consists of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.catalogue.whitening import Whitening
from recjax.common.files import sha256
from recjax.common.param_paths import FlatParams
from recjax.data.batching.types import Scorer

# Columns of the item table of a saved model.
ITEM, TITLE, TEXT, HASH, EVENTS, STATE = (
    "id",
    "title",
    "text",
    "hash",
    "events",
    "state",
)
TRAINED, UNTRAINED, ADDED = "trained", "untrained", "added"  # states of an item
# Columns of the table of histories; times only if the user tower reads them.
USER, ITEMS, TIMES = "user", "items", "times"
HISTORY_SCHEMA: dict[str, Any] = {USER: pl.String, ITEMS: pl.List(pl.Int32)}
TIMES_SCHEMA = {TIMES: pl.List(pl.Float64)}
# In `ModelParts.about`, if a service has stored events: the sequence of the last one
# that the histories have, and the identity of its store.
CURSOR, STORE = "cursor", "store"
COPY = "copy the directory again"  # what to do about damaged files of a model


def make_history_table(
    users: Sequence[str],
    histories: Sequence[Sequence[int]],
    times: Sequence[Sequence[float]] | None = None,
) -> pl.DataFrame:
    """Makes the table of histories of a model from users and their item indices.

    `times` are those of the events in seconds; None without a user tower that reads
    them.
    """
    table = pl.DataFrame({USER: users, ITEMS: histories}, schema=HISTORY_SCHEMA)
    if times is None:
        return table
    return table.hstack(pl.DataFrame({TIMES: times}, schema=TIMES_SCHEMA))


def make_item_table(
    ids: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str],
    events: Sequence[int],
    states: Sequence[str],
) -> pl.DataFrame:
    """Makes the item table of a model, with a hash of every text."""
    columns = {
        ITEM: ids,
        TITLE: titles,
        TEXT: texts,
        HASH: [sha256(text)[:16] for text in texts],
        EVENTS: events,
        STATE: states,
    }
    schema = dict.fromkeys(columns, pl.String) | {EVENTS: pl.Int64}
    return pl.DataFrame(columns, schema=schema)


@dataclass(frozen=True)
class ItemVectors:
    """What the items are ranked by: `query . candidate + bias`.

    Attributes:
      history_NxD: vectors of items in a history, the input of the user tower.
      candidates_NxD: vectors that queries are compared with.
      bias_N: biases of the items.
    """

    history_NxD: np.ndarray
    candidates_NxD: np.ndarray
    bias_N: np.ndarray


@dataclass(frozen=True)
class ModelParts:
    """A trained model without its run.

    Attributes:
      config: the config of the run.
      params: all parameters by path.
      items: the item table in the order of the item indices; columns as above.
      vectors: vectors and biases of all items.
      encoder: directory with `config.json` and `tokenizer.json` of the text encoder;
        None without a text source.
      whitening: of the frozen text vectors, if the item tower reads whitened ones.
      fusion: the fitted baselines of a score fusion, by name.
      histories: users and the items of their histories, oldest first; None if they were
        not kept, see `make_history_table`.
      about: facts for the model card: data, protocol, metrics, versions.
    """

    config: Any
    params: FlatParams
    items: pl.DataFrame
    vectors: ItemVectors
    encoder: Path | None = None
    whitening: Whitening | None = None
    fusion: dict[str, Scorer] = field(default_factory=dict)
    histories: pl.DataFrame | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self.items)

    @property
    def num_trained(self) -> int:
        """The size of the catalogue of the training; items that were added follow."""
        return int((self.items[STATE] != ADDED).sum())
