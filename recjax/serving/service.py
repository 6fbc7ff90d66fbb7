"""A live service without HTTP: events, lists, items, and new models."""

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recjax.common.errors import UserError
from recjax.inference.files import locate_model, model_version
from recjax.inference.model import Model
from recjax.serving.cursor import read_cursor
from recjax.serving.engine import (
    Engine,
    ItemList,
    ListItem,
    ListRequest,
    Timings,
    UnknownItem,
)
from recjax.serving.live_catalogue import LiveCatalogue
from recjax.serving.new_items import NewItem, encode_items, insert_items
from recjax.serving.store import (
    DELETED,
    HIDDEN,
    SHOWN,
    HistoryEntry,
    NewEvent,
    Store,
    StoredItem,
    apply_events,
)

ENCODED_AT_ONCE = 32  # new items per part; lists wait for one part


class Answer(NamedTuple):
    """A list, and the sequence of the newest event that it reflects."""

    found: ItemList
    last_event: int


class Service:
    """A live recommender over one model and one store.

    Args:
      model: a run directory, a model directory, or a name on the Hub.
      store: the events, and the items that were added while serving.
      spare: columns for new items; None is a share of the catalogue.
      report: receives the `Timings` of every batch.

    Raises:
      UserError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        store: Store,
        spare: int | None = None,
        report: Callable[[Timings], None] = lambda timings: None,
    ):
        self.store = store
        self._spare = spare
        self._reloading = threading.Lock()
        self._changes = asyncio.Lock()  # of items, so that store and catalogue agree
        live, version = self._load(model)
        self.engine = Engine(live, version, report)

    @property
    def live(self) -> LiveCatalogue:
        """The catalogue of the present model."""
        return self.engine.live

    def _load(self, name: str) -> tuple[LiveCatalogue, str]:
        """Loads a model, its new items and its programs."""
        # Read once: a promotion during the loading changes the link.
        folder = Path(os.path.realpath(locate_model(name)))
        loaded = Model.from_pretrained(folder)
        version = model_version(folder)
        cursor = read_cursor(loaded, self.store)
        _ = loaded.users  # reads the histories, which the first list would wait for
        live = LiveCatalogue(loaded, self._spare, cursor)
        live.warm_up()
        self._apply_stored(live)
        return live, version

    def _apply_stored(self, live: LiveCatalogue) -> None:
        """Gives a catalogue that no engine has the items of the store."""
        stored = self.store.items().result()
        with_texts = [NewItem(x.id, x.text, x.title) for x in stored if x.text]
        insert_items(live, encode_items(live, with_texts))
        for item in stored:
            column = live.columns.get(item.id)
            if column is not None and (column in live.hidden) != (item.state != SHOWN):
                live.hide(column, item.state != SHOWN)

    async def add_event(self, event: NewEvent) -> int:
        """Stores an event; later lists reflect it. Returns its sequence."""
        return await asyncio.wrap_future(self.store.add(event))

    async def history(self, user: str) -> tuple[list[HistoryEntry], int]:
        """Returns a user's history and the sequence of its end."""
        live = self.live
        events = await asyncio.wrap_future(self.store.history(user, live.cursor))
        ids = live.model.ids
        before = ids.history_ids(user), ids.history_times(user).tolist()
        last = events[-1].sequence if events else live.cursor
        return apply_events(*before, events), last

    async def recommend_user(
        self, user: str, k: int, exclude: Sequence[str], explain: bool
    ) -> Answer:
        """Makes a list for a user, from all events up to now."""
        entries, last = await self.history(user)
        history, times = _split(entries)
        request = ListRequest(history, exclude, k, explain, times)
        return await self._recommend(request, last)

    async def recommend_history(
        self, history: Sequence[str], k: int, exclude: Sequence[str], explain: bool
    ) -> Answer:
        """Makes a list for any history."""
        return await self._recommend(ListRequest(history, exclude, k, explain), 0)

    async def _recommend(self, request: ListRequest, last: int) -> Answer:
        found = await asyncio.wrap_future(self.engine.recommend(request))
        return Answer(found, last)

    async def rank(
        self, user: str | None, history: Sequence[str], names: Sequence[str]
    ) -> Answer:
        """Orders some items for a user, or for a history if there is no user.

        Raises:
          UnknownItem: there is no such item.
        """
        times, last = None, 0
        if user is not None:
            entries, last = await self.history(user)
            history, times = _split(entries)
        found = await asyncio.wrap_future(self.engine.rank(history, names, times))
        return Answer(found, last)

    async def neighbours(self, name: str, k: int) -> list[ListItem]:
        """Returns the items nearest to one.

        Raises:
          UnknownItem: there is no such item.
        """
        return await asyncio.wrap_future(self.engine.neighbours(name, k))

    async def put_items(self, items: Sequence[NewItem]) -> None:
        """Adds or changes items: stored first, then ready to be recommended.

        They are encoded in parts, so that lists do not wait for all of them. An item
        without a title keeps the one that it has, unless that was its text.

        Raises:
          UserError: the model reads ids alone, or there is no room.
        """
        # An item that cannot be added must not be stored either.
        live = self.live
        _ = live.model.item_encoder
        live.check_room(len({x.id for x in items if x.id not in live.columns}))
        # The last item with an id counts. Texts of similar length need little padding.
        latest = {item.id: item for item in items}.values()
        by_length = sorted(latest, key=lambda item: len(item.text))
        for start in range(0, len(by_length), ENCODED_AT_ONCE):
            part = by_length[start : start + ENCODED_AT_ONCE]
            async with self._changes:
                await self._put_part(part)

    async def _put_part(self, items: Sequence[NewItem]) -> None:
        live = self.live
        live.check_room(sum(item.id not in live.columns for item in items))
        named = [item._replace(title=self._title(item)) for item in items]
        # Encoded before anything is stored, because a text may be refused.
        encoded = await asyncio.wrap_future(self.engine.encode_items(named))
        # A hidden item stays hidden; a deleted one is an item again.
        stored, restored = [], []
        for item in named:
            state = SHOWN
            if live.columns.get(item.id) in live.hidden:
                kept = await asyncio.wrap_future(self.store.item(item.id))
                if kept is not None and kept.state == HIDDEN:
                    state = HIDDEN
                else:
                    restored.append(item.id)
            stored.append(StoredItem(item.id, item.text, item.title, state))
        await asyncio.wrap_future(self.store.put_items(stored))
        await asyncio.wrap_future(self.engine.insert_items(encoded))
        for name in restored:
            await asyncio.wrap_future(self.engine.hide(name, False))

    def _title(self, item: NewItem) -> str:
        """Returns the title that an item gets."""
        live, column = self.live, self.live.columns.get(item.id)
        if item.title or column is None:
            return item.title or item.text
        title = live.titles[column]
        return item.text if live.text(item.id) == title else title

    async def set_state(self, name: str, state: str) -> None:
        """Hides, deletes or shows an item.

        Raises:
          UnknownItem: there is no such item, or it is deleted.
        """
        async with self._changes:
            await self._set_state(name, state)

    async def _set_state(self, name: str, state: str) -> None:
        live = self.live
        if name not in live.columns:
            raise UnknownItem(name)
        kept = await asyncio.wrap_future(self.store.item(name))
        if state != DELETED and kept is not None and kept.state == DELETED:
            raise UnknownItem(name)
        title = kept.title if kept else live.titles[live.columns[name]]
        stored = StoredItem(name, kept.text if kept else "", title, state)
        await asyncio.wrap_future(self.store.put_items([stored]))
        await asyncio.wrap_future(self.engine.hide(name, state != SHOWN))

    async def encode(self, texts: Sequence[str]) -> Any:
        """Returns the vectors of texts."""
        _ = self.live.model.item_encoder
        return await asyncio.wrap_future(self.engine.encode(texts))

    def search(self, words: str, k: int) -> list[tuple[str, str]]:
        """Returns ids and titles of items whose titles have all the words."""
        live, wanted = self.live, words.casefold().split()
        found = []
        for column, title in enumerate(live.titles):
            folded = title.casefold()
            if column not in live.hidden and all(word in folded for word in wanted):
                found.append((live.ids[column], title))
            if len(found) == k:
                break
        return found

    async def reload(self, model: str) -> str:
        """Replaces the model without a pause; returns the new version.

        Raises:
          UserError: the model is refused, and the present one stays.
        """
        if not self._reloading.acquire(blocking=False):
            raise UserError("reload: another one is in progress")
        try:
            live, version = await asyncio.to_thread(self._load, model)
            await asyncio.to_thread(self._check_same_catalogue, live, model)
            # Nobody changes an item between the last look at the store and the moment
            # when the new catalogue is used.
            async with self._changes:
                await asyncio.to_thread(self._apply_stored, live)
                replaced = await asyncio.to_thread(self.engine.replace, live, version)
                await asyncio.wrap_future(replaced)
            return version
        finally:
            self._reloading.release()

    def _check_same_catalogue(self, live: LiveCatalogue, model: str) -> None:
        """Refuses a model whose catalogue shares no items with the present one."""
        present = self.live.columns
        shared = sum(name in present for name in live.ids)
        if shared < len(live.ids) / 2:
            raise UserError(
                f"reload: {model}: is a model of another catalogue: only {shared:,} of "
                f"its {len(live.ids):,} items are in the present one"
            )

    def close(self) -> None:
        """Answers what waits, and closes engine and store."""
        self.engine.close()
        self.store.close()


def _split(entries: Sequence[HistoryEntry]) -> tuple[list[str], list[float]]:
    """Returns the item ids and the times of a history."""
    return [entry.item for entry in entries], [entry.time for entry in entries]


def make_event(
    user: str,
    items: Sequence[str],
    kind: str,
    id: str | None = None,
    timestamp: float | None = None,
) -> NewEvent:
    """Makes an event; without an id it is one of its own."""
    return NewEvent(
        id or uuid.uuid4().hex,
        kind,
        user,
        time.time() if timestamp is None else timestamp,
        tuple(items),
    )
