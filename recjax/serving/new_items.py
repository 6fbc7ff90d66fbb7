"""Encodes items that are added or changed, and inserts them into a live catalogue."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recjax.common.errors import UserError
from recjax.inference.parts import ItemVectors
from recjax.serving.live_catalogue import LiveCatalogue


class NewItem(NamedTuple):
    """An item to add, or to change."""

    id: str
    text: str
    title: str


class EncodedItems(NamedTuple):
    """Items that are ready to be inserted.

    Attributes:
      changed: new items, and those with another text.
      vectors: of `changed`.
      same: items whose texts are as before, and whose titles may be others.
    """

    changed: list[NewItem]
    vectors: ItemVectors | None
    same: list[NewItem]


def encode_items(live: LiveCatalogue, items: Sequence[NewItem]) -> EncodedItems:
    """Encodes new items, and those whose texts are others than in the catalogue.

    Raises:
      UserError: the model reads ids alone, or a text cannot be encoded.
    """
    same = [item for item in items if live.text(item.id) == item.text]
    known = {item.id for item in same}
    changed = [item for item in items if item.id not in known]
    if not changed:
        return EncodedItems([], None, same)
    rows = live.trained_rows([item.id for item in changed])
    vectors = live.model.item_encoder.encode([item.text for item in changed], rows)
    if not np.isfinite(vectors.candidates_NxD).all():
        raise UserError("items: a vector is not finite")
    return EncodedItems(changed, vectors, same)


def insert_items(live: LiveCatalogue, items: EncodedItems) -> None:
    """Adds encoded items to a catalogue, or changes them.

    Raises:
      UserError: there is no room.
    """
    if items.vectors is not None:
        ids, texts, titles = zip(*items.changed, strict=True)
        live.add(ids, texts, titles, items.vectors)
    for item in items.same:
        live.titles[live.columns[item.id]] = item.title
