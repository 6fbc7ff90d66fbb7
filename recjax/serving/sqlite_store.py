"""A store in one SQLite file, for one service.

An event is written to the disk before its `Future` is done (`synchronous=FULL`).
"""

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from recjax.common.errors import first_line
from recjax.serving.limits import MAX_QUEUE, QueueFull
from recjax.serving.sqlite_file import file_ids, open_file
from recjax.serving.store import (
    SEPARATOR,
    Event,
    EventConflict,
    NewEvent,
    StoredItem,
    StoreError,
)

MAX_BATCH = 256  # jobs that share one transaction


class SqliteStore:
    """A store in one SQLite file; see `Store`.

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
        self._file_ids = file_ids(path)
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
        """Raises StoreError if the file or its log was deleted or replaced."""
        if file_ids(self.path) != self._file_ids:
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
            self._run(
                [
                    (job, future)
                    for job, future in filter(None, batch)
                    if future.set_running_or_notify_cancel()
                ]
            )
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
