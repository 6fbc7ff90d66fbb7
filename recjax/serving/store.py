"""The interface of an event store, and what is stored.

A store holds the events that a service has received and the items that were added to
it. An event is stored when its `Future` is done, and not lost after that.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

RETRACTION = "retraction"  # the kind of an event that takes back earlier ones
SHOWN, HIDDEN, DELETED = "added", "hidden", "deleted"  # states of a stored item
SEPARATOR = "\x1f"  # between the ids of the items of an event; refused in ids


class NewEvent(NamedTuple):
    """An event as it arrives.

    Attributes:
      id: chosen by the sender; the same id again is the same event.
      kind: "interaction", or "retraction", which removes the item from the history.
      timestamp: seconds since 1970, as the sender says.
      items: ids of the items.
    """

    id: str
    kind: str
    user: str
    timestamp: float
    items: tuple[str, ...]


class Event(NamedTuple):
    """A stored event; `sequence` grows by one from event to event."""

    sequence: int
    id: str
    kind: str
    user: str
    timestamp: float
    items: tuple[str, ...]


class HistoryEntry(NamedTuple):
    """An item of a history.

    Attributes:
      item: its id.
      sequence: of its event; 0 for an event before the store.
      time: seconds since 1970; NaN where unknown.
    """

    item: str
    sequence: int
    time: float


def apply_events(
    history: Sequence[str], times: Sequence[float], events: Sequence[Event]
) -> list[HistoryEntry]:
    """Appends events to a history; a retraction removes its items from it."""
    entries = [
        HistoryEntry(item, 0, time) for item, time in zip(history, times, strict=True)
    ]
    for event in events:
        if event.kind == RETRACTION:
            entries = [entry for entry in entries if entry.item not in event.items]
        else:
            new = event.sequence, event.timestamp
            entries += [HistoryEntry(item, *new) for item in event.items]
    return entries


class StoredItem(NamedTuple):
    """An item that was added, changed, hidden or deleted while serving."""

    id: str
    text: str
    title: str
    state: str  # SHOWN, HIDDEN or DELETED


class StoreError(Exception):
    """The store cannot be read or written at present.

    It is not known whether a write was stored, because Redis may have stored it and not
    have answered in time. The same event with the same id again, or the same items, are
    safe to write.
    """


class EventConflict(Exception):
    """The id of an event was used before, for another user, kind or list of items.

    Args:
      id: the id.
    """

    def __init__(self, id: str):
        super().__init__(f"the event id {id!r} was used for another event")


class Store(Protocol):
    """Where a service keeps events and items. All methods may be called by any thread.

    A `Future` raises `StoreError` if the store fails. All methods but `close` raise
    `QueueFull` if too many calls wait.
    """

    def identity(self) -> "Future[str]":
        """Returns the random id, in hexadecimal digits, that the store got when new.

        Sequences of two stores can be compared only if their identities are equal.
        """

    def add(self, event: NewEvent) -> "Future[int]":
        """Stores an event; returns its sequence, or that of the same event before.

        The future raises EventConflict if its id belongs to another event.
        """

    def history(self, user: str, after: int = 0) -> "Future[list[Event]]":
        """Returns the events of a user after a sequence, in order of arrival."""

    def events(self, after: int, limit: int) -> "Future[list[Event]]":
        """Returns the events of all users after a sequence, in order of arrival."""

    def last_sequence(self) -> "Future[int]":
        """Returns the sequence of the newest event; 0 if there is none."""

    def put_items(self, items: Sequence[StoredItem]) -> "Future[None]":
        """Stores items; an item with the same id is replaced."""

    def items(self) -> "Future[list[StoredItem]]":
        """Returns all items, in the order in which they were first stored."""

    def item(self, name: str) -> "Future[StoredItem | None]":
        """Returns one item; None if it is not stored."""

    def close(self) -> None:
        """Completes the pending jobs and closes the store."""
