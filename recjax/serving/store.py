"""The interface of an event store, and its implementation in SQLite.

A store holds the events that a service has received and the items that were added to
it. An event is stored when its `Future` is done, and not lost after that: SQLite writes
it to disk before (`synchronous=FULL`).
"""

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from recjax.common.errors import first_line
from recjax.serving.limits import MAX_QUEUE, QueueFull
from recjax.serving.sqlite_file import file_version, open_file

RETRACTION = "retraction"  # the kind of an event that takes back earlier ones
MAX_BATCH = 256  # jobs that share one transaction


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


SEPARATOR = "\x1f"  # between the ids of the items of an event; refused in ids


class SqliteStore:
    """A store in one SQLite file.

    One thread writes and another one reads, so that reads do not wait while another
    process holds the lock of the file.

    Args:
      path: the file.
      create: whether it is created if it does not exist, or is empty.

    Raises:
      UserError: the file cannot be opened, is damaged, or is no store; it is not
        changed then.
    """

    def __init__(self, path: Path, *, create: bool = True):
        self.path = path
        writing, reading = open_file(path, create=create)
        self._version = file_version(path)
        self._writer = _Worker(writing, "begin immediate", path, self._check_file)
        self._reader = _Worker(reading, "begin", path)

    def identity(self) -> "Future[str]":
        def job(db: sqlite3.Connection) -> str:
            return str(db.execute("select identity from store").fetchone()[0])

        return self._reader.submit(job)

    def add(self, event: NewEvent) -> "Future[int]":
        content = event.kind, event.user, SEPARATOR.join(event.items)

        def job(db: sqlite3.Connection) -> int:
            # Not "on conflict", which would leave a gap in the sequences.
            found = db.execute(
                "select sequence, kind, user, items from events where id = ?",
                (event.id,),
            ).fetchone()
            if found is None:
                added = db.execute(
                    "insert into events (id, kind, user, items, timestamp, received)"
                    " values (?, ?, ?, ?, ?, ?)",
                    (event.id, *content, event.timestamp, time.time()),
                )
                return int(added.lastrowid or 0)
            if found[1:] != content:
                raise EventConflict(event.id)
            return int(found[0])

        return self._writer.submit(job)

    def history(self, user: str, after: int = 0) -> "Future[list[Event]]":
        return self._reader.submit(
            lambda db: _events(
                db, "user = ? and sequence > ? order by sequence", (user, after)
            )
        )

    def events(self, after: int, limit: int) -> "Future[list[Event]]":
        return self._reader.submit(
            lambda db: _events(
                db, "sequence > ? order by sequence limit ?", (after, limit)
            )
        )

    def last_sequence(self) -> "Future[int]":
        def job(db: sqlite3.Connection) -> int:
            found = db.execute("select coalesce(max(sequence), 0) from events")
            return int(found.fetchone()[0])

        return self._reader.submit(job)

    def put_items(self, items: Sequence[StoredItem]) -> "Future[None]":
        def job(db: sqlite3.Connection) -> None:
            db.executemany(
                "insert into items (id, text, title, state) values (?, ?, ?, ?)"
                " on conflict (id) do update set text = excluded.text,"
                " title = excluded.title, state = excluded.state",
                items,
            )

        return self._writer.submit(job)

    def items(self) -> "Future[list[StoredItem]]":
        query = "select id, text, title, state from items order by position"
        return self._reader.submit(
            lambda db: [StoredItem(*row) for row in db.execute(query)]
        )

    def item(self, name: str) -> "Future[StoredItem | None]":
        query = "select id, text, title, state from items where id = ?"

        def job(db: sqlite3.Connection) -> StoredItem | None:
            found = db.execute(query, (name,)).fetchone()
            return StoredItem(*found) if found else None

        return self._reader.submit(job)

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    def _check_file(self) -> None:
        """Raises StoreError if what was written is in no file any more."""
        if file_version(self.path) != self._version:
            raise StoreError(
                f"{self.path}: the file, or its log with the ending -wal, was deleted "
                "or replaced while it was in use; start the service again"
            )


class _Worker:
    """A thread that runs jobs in transactions of one connection.

    Jobs that wait share a transaction, so that many events cost one write to the disk.

    Args:
      db: the connection, which the thread closes at the end.
      begin: the statement that begins a transaction.
      path: the file, for errors.
      confirm: is called after each transaction; if it raises, all jobs of the
        transaction fail.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        begin: str,
        path: Path,
        confirm: Callable[[], None] = lambda: None,
    ):
        self._db, self._begin, self._path, self._confirm = db, begin, path, confirm
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closing, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[sqlite3.Connection], Any]) -> "Future[Any]":
        """Runs a job soon.

        Raises:
          QueueFull: too many jobs wait.
        """
        if self._jobs.qsize() >= MAX_QUEUE:
            raise QueueFull
        future: Future[Any] = Future()
        with self._closing:  # nothing may come after the end
            if self._closed:
                future.set_exception(StoreError(f"{self._path}: is closed"))
            else:
                self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Runs the jobs that wait, and ends the thread."""
        with self._closing:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            batch = [self._jobs.get()]
            while len(batch) < MAX_BATCH and not self._jobs.empty():
                batch.append(self._jobs.get())
            ended = None in batch
            # A job whose caller has gone is cancelled, and does not run.
            self._run([x for x in batch if x and x[1].set_running_or_notify_cancel()])
        self._db.close()

    def _run(self, batch: list[tuple[Any, Future[Any]]]) -> None:
        """Runs jobs in one transaction; if it fails, none of them is stored."""
        if not batch:
            return
        try:
            self._db.execute(self._begin)
            outcomes = [self._attempt(job) for job, _ in batch]
            self._db.execute("commit")
            self._confirm()
        except Exception as e:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("rollback")
            outcomes = [e] * len(batch)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                future.set_exception(self._error(outcome))
            else:
                future.set_result(outcome)

    def _attempt(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        """Returns the result of a job, or its exception, which undoes only this job."""
        self._db.execute("savepoint job")
        try:
            outcome = job(self._db)
        except Exception as e:
            code = getattr(e, "sqlite_errorcode", 0) & 0xFF  # without its details
            if code == sqlite3.SQLITE_BUSY:
                raise  # the other jobs would wait for the same lock
            if not self._db.in_transaction:
                raise  # SQLite has undone all jobs, for example when the disk is full
            self._db.execute("rollback to job")
            outcome = e
        self._db.execute("release job")
        return outcome

    def _error(self, error: Exception) -> Exception:
        """Returns the exception that a caller gets."""
        if isinstance(error, StoreError | EventConflict):
            return error
        found = StoreError(f"{self._path}: {first_line(error)}")
        found.__cause__ = error
        return found


def _events(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> list[Event]:
    query = (
        f"select sequence, id, kind, user, timestamp, items from events where {where}"
    )
    return [
        Event(sequence, name, kind, user, timestamp, tuple(items.split(SEPARATOR)))
        for sequence, name, kind, user, timestamp, items in db.execute(query, values)
    ]
