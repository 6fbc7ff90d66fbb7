"""The interface of an event store, and its implementation in SQLite.

A store holds the events that a service has received and the items that were added to
it. An event is stored when its `Future` is done, and not lost after that: SQLite writes
it to disk before (`synchronous=FULL`).
"""

import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from recjax.common.errors import UserError

RETRACTION = "retraction"  # the kind of an event that takes back earlier ones
CURSOR = "cursor"  # in a model's `about`: the last event that its histories have
MAX_BATCH = 256  # jobs that share one transaction
BUSY_SECONDS = 5.0  # to wait for a lock of another process


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


def apply_events(
    history: Sequence[str], events: Sequence[Event]
) -> list[tuple[str, int]]:
    """Appends events to a history; a retraction removes its items from it.

    Returns:
      Items with the sequence of their event, 0 for those of the history.
    """
    items = [(item, 0) for item in history]
    for event in events:
        if event.kind == RETRACTION:
            items = [(x, sequence) for x, sequence in items if x not in event.items]
        else:
            items += [(x, event.sequence) for x in event.items]
    return items


class StoredItem(NamedTuple):
    """An item that was added, changed, hidden or deleted while serving."""

    id: str
    text: str
    title: str
    state: str  # "added", "hidden" or "deleted"


class StoreError(Exception):
    """The store cannot be read or written at present; nothing was stored."""


class Store(Protocol):
    """Where a service keeps events and items. All methods may be called by any thread.

    A `Future` raises `StoreError` if the store fails.
    """

    def identity(self) -> "Future[str]":
        """Returns the random id, in hexadecimal digits, that the store got when new.

        Sequences of two stores can be compared only if their identities are equal.
        """

    def add(self, event: NewEvent) -> "Future[int]":
        """Stores an event; returns its sequence, or that of the same event before."""

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


SCHEMA = """
create table if not exists events (
  sequence integer primary key autoincrement,
  id text not null unique,
  kind text not null,
  user text not null,
  timestamp real not null,
  items text not null,
  received real not null
);
create index if not exists events_by_user on events (user, sequence);
create table if not exists items (
  position integer primary key autoincrement,
  id text not null unique,
  text text not null,
  title text not null,
  state text not null
);
create table if not exists store (identity text not null);
"""
# A store that was made before stores had identities gets one when it is opened.
SET_IDENTITY = """
insert into store (identity) select ? where not exists (select 1 from store)
"""
SEPARATOR = "\x1f"  # between the ids of the items of an event; refused in ids


class SqliteStore:
    """A store in one SQLite file, used by one thread of its own.

    Jobs that wait share a transaction, so that many events cost one write to the disk.

    Args:
      path: the file; it is created if it does not exist.

    Raises:
      UserError: the file cannot be opened, is damaged, or is no store.
    """

    def __init__(self, path: Path):
        self.path = path
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._work, args=(started,), name="store", daemon=True
        )
        self._thread.start()
        started.result()

    def identity(self) -> "Future[str]":
        def job(db: sqlite3.Connection) -> str:
            return str(db.execute("select identity from store").fetchone()[0])

        return self._submit(job)

    def add(self, event: NewEvent) -> "Future[int]":
        values = (
            event.id,
            event.kind,
            event.user,
            event.timestamp,
            SEPARATOR.join(event.items),
            time.time(),
        )

        def job(db: sqlite3.Connection) -> int:
            db.execute(
                "insert into events (id, kind, user, timestamp, items, received)"
                " values (?, ?, ?, ?, ?, ?) on conflict (id) do nothing",
                values,
            )
            found = db.execute("select sequence from events where id = ?", (event.id,))
            return int(found.fetchone()[0])

        return self._submit(job)

    def history(self, user: str, after: int = 0) -> "Future[list[Event]]":
        return self._submit(
            lambda db: _events(
                db, "user = ? and sequence > ? order by sequence", (user, after)
            )
        )

    def events(self, after: int, limit: int) -> "Future[list[Event]]":
        return self._submit(
            lambda db: _events(
                db, "sequence > ? order by sequence limit ?", (after, limit)
            )
        )

    def last_sequence(self) -> "Future[int]":
        def job(db: sqlite3.Connection) -> int:
            found = db.execute("select coalesce(max(sequence), 0) from events")
            return int(found.fetchone()[0])

        return self._submit(job)

    def put_items(self, items: Sequence[StoredItem]) -> "Future[None]":
        def job(db: sqlite3.Connection) -> None:
            db.executemany(
                "insert into items (id, text, title, state) values (?, ?, ?, ?)"
                " on conflict (id) do update set text = excluded.text,"
                " title = excluded.title, state = excluded.state",
                items,
            )

        return self._submit(job)

    def items(self) -> "Future[list[StoredItem]]":
        query = "select id, text, title, state from items order by position"
        return self._submit(lambda db: [StoredItem(*row) for row in db.execute(query)])

    def item(self, name: str) -> "Future[StoredItem | None]":
        query = "select id, text, title, state from items where id = ?"

        def job(db: sqlite3.Connection) -> StoredItem | None:
            found = db.execute(query, (name,)).fetchone()
            return StoredItem(*found) if found else None

        return self._submit(job)

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _submit(self, job: Callable[[sqlite3.Connection], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        return future

    def _work(self, started: "Future[None]") -> None:
        try:
            db = _open(self.path)
        except BaseException as e:
            started.set_exception(e)
            return
        started.set_result(None)
        ended = False
        while not ended:
            batch = [self._jobs.get()]
            while len(batch) < MAX_BATCH and not self._jobs.empty():
                batch.append(self._jobs.get())
            ended = None in batch
            self._run([each for each in batch if each is not None], db)
        db.close()

    def _run(
        self, batch: list[tuple[Any, Future[Any]]], db: sqlite3.Connection
    ) -> None:
        """Runs jobs in one transaction; on a failure none of them is stored."""
        if not batch:
            return
        try:
            db.execute("begin immediate")
            results = [job(db) for job, _ in batch]
            db.execute("commit")
        except sqlite3.Error as e:
            if db.in_transaction:
                db.execute("rollback")
            if len(batch) > 1:  # one bad job must not fail the others
                for each in batch:
                    self._run([each], db)
                return
            batch[0][1].set_exception(StoreError(f"{self.path}: {e}"))
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        found = db.execute("pragma quick_check").fetchone()[0]
        if found != "ok":
            raise UserError(f"store {path}: is damaged ({found.splitlines()[0]})")
        db.executescript(SCHEMA)
        db.execute(SET_IDENTITY, (uuid.uuid4().hex,))
    except sqlite3.Error as e:
        raise UserError(f"store {path}: {e}") from None
    except OSError as e:
        raise UserError(f"store {path}: {e.strerror}") from None
    return db


def _events(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> list[Event]:
    query = (
        f"select sequence, id, kind, user, timestamp, items from events where {where}"
    )
    return [
        Event(sequence, name, kind, user, timestamp, tuple(items.split(SEPARATOR)))
        for sequence, name, kind, user, timestamp, items in db.execute(query, values)
    ]
