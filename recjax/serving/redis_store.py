"""A store in Redis, for services that share their events.

Services that share a store see each other's events at once, but each other's new,
hidden and deleted items only after a restart or a reload.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from recjax.common.errors import UserError, first_line
from recjax.serving.limits import MAX_QUEUE, QueueFull
from recjax.serving.store import (
    SEPARATOR,
    Event,
    EventConflict,
    NewEvent,
    StoredItem,
    StoreError,
)

PREFIX = "recjax:"
REDIS = ("redis://", "rediss://", "unix://")  # addresses
TIMEOUT = 5.0  # seconds
CONFLICT = 0  # what `ADD` returns if the id belongs to another event
# Stores an event once: its sequence, its fields, and its place in two lists.
ADD = """
local known = redis.call('hget', KEYS[1], ARGV[1])
if known then
  local found = redis.call('hmget', KEYS[3] .. known, 'kind', 'user', 'items')
  local same = found[1] == ARGV[2] and found[2] == ARGV[3] and found[3] == ARGV[5]
  return same and tonumber(known) or 0
end
local sequence = redis.call('incr', KEYS[2])
redis.call('hset', KEYS[1], ARGV[1], sequence)
redis.call('hset', KEYS[3] .. sequence, 'id', ARGV[1], 'kind', ARGV[2], 'user', ARGV[3],
  'timestamp', ARGV[4], 'items', ARGV[5])
redis.call('zadd', KEYS[4], sequence, sequence)
redis.call('zadd', KEYS[5], sequence, sequence)
return sequence
"""


class RedisStore:
    """A store in Redis; see `Store`.

    What Redis loses when it is killed is decided by its own settings: with
    `appendonly yes` and `appendfsync always` it loses no acknowledged event.

    Args:
      url: redis://HOST:PORT/DATABASE.

    Raises:
      UserError: the library is not installed, or Redis does not answer.
    """

    def __init__(self, url: str):
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise UserError(
                "store: Redis needs the library redis: pip install 'recjax[serve]'"
            ) from None
        self._shown = shown_address(url)
        # One retry, at once: of a connection that Redis has closed since it was used.
        retry = Retry(NoBackoff(), 1)
        try:
            _split_address(url)
            self._db = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=retry,
            )
            self._db.ping()
        except (redis.RedisError, OSError) as e:
            raise UserError(f"store {self._shown}: {e}") from None
        except (ValueError, TypeError):  # their messages quote parts of the address
            raise UserError(
                f"store {self._shown}: the address is not valid; in a password write "
                "%2F for /, %3F for ?, %23 for # and %40 for @"
            ) from None
        self._unreachable = (redis.ConnectionError, redis.TimeoutError, OSError)
        self._failed = -1.0  # when Redis could not be reached, by time.monotonic()
        self._add = self._db.register_script(ADD)
        # One thread, so that a read follows the writes before it.
        self._thread = ThreadPoolExecutor(1, "store")
        self._room = threading.Semaphore(MAX_QUEUE)

    def identity(self) -> "Future[str]":
        key = PREFIX + "identity"

        def job() -> str:
            if not self._db.exists(key):  # a replica that has one cannot be written
                self._db.setnx(key, uuid.uuid4().hex)
            return str(self._db.get(key))

        return self._submit(job)

    def add(self, event: NewEvent) -> "Future[int]":
        keys = ["ids", "sequence", "event:", "events", f"user:{event.user}"]
        values = (
            event.id,
            event.kind,
            event.user,
            repr(event.timestamp),
            SEPARATOR.join(event.items),
        )

        def job() -> int:
            sequence = int(self._add([PREFIX + key for key in keys], values))
            if sequence == CONFLICT:
                raise EventConflict(event.id)
            return sequence

        return self._submit(job)

    def history(self, user: str, after: int = 0) -> "Future[list[Event]]":
        return self._submit(lambda: self._read(f"user:{user}", after, None))

    def events(self, after: int, limit: int) -> "Future[list[Event]]":
        return self._submit(lambda: self._read("events", after, limit))

    def last_sequence(self) -> "Future[int]":
        return self._submit(lambda: int(self._db.get(PREFIX + "sequence") or 0))

    def put_items(self, items: Sequence[StoredItem]) -> "Future[None]":
        def job() -> None:
            end = self._db.incrby(PREFIX + "positions", len(items)) + 1
            pipe = self._db.pipeline(transaction=True)
            for position, item in enumerate(items, end - len(items)):
                pipe.zadd(PREFIX + "items", {item.id: position}, nx=True)
                pipe.hset(_item_key(item.id), mapping=item._asdict())
            pipe.execute()

        return self._submit(job)

    def items(self) -> "Future[list[StoredItem]]":
        def job() -> list[StoredItem]:
            pipe = self._db.pipeline(transaction=False)
            names = self._db.zrange(PREFIX + "items", 0, -1)
            for name in names:
                pipe.hgetall(_item_key(name))
            rows = zip(names, pipe.execute(), strict=True)
            return [_item(name, row) for name, row in rows if row]

        return self._submit(job)

    def item(self, name: str) -> "Future[StoredItem | None]":
        def job() -> StoredItem | None:
            row = self._db.hgetall(_item_key(name))
            return _item(name, row) if row else None

        return self._submit(job)

    def close(self) -> None:
        self._thread.shutdown()
        self._db.close()

    def _read(self, key: str, after: int, limit: int | None) -> list[Event]:
        part = {} if limit is None else {"start": 0, "num": limit}
        found = self._db.zrangebyscore(PREFIX + key, f"({after}", "+inf", **part)
        pipe = self._db.pipeline(transaction=False)
        for sequence in found:
            pipe.hgetall(_event_key(sequence))
        rows = zip(found, pipe.execute(), strict=True)
        return [_event(sequence, row) for sequence, row in rows]

    def _submit(self, job: Callable[[], Any]) -> "Future[Any]":
        """Runs a job in the thread.

        Raises:
          QueueFull: too many jobs wait.
        """
        if not self._room.acquire(blocking=False):
            raise QueueFull
        try:
            future = self._thread.submit(self._run, job, time.monotonic())
        except RuntimeError:  # the thread was shut down by `close`
            future = Future()
            future.set_exception(StoreError(f"{self._shown}: is closed"))
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _run(self, job: Callable[[], Any], submitted: float) -> Any:
        # What waited while Redis could not be reached fails at once, not one by one.
        if submitted < self._failed:
            raise StoreError(f"{self._shown}: could not be reached")
        try:
            return job()
        except EventConflict:
            raise
        except self._unreachable as e:
            self._failed = time.monotonic()
            raise StoreError(f"{self._shown}: {e}") from None
        except UnicodeDecodeError as e:
            message = f"{self._shown}: holds text under {PREFIX} that is not UTF-8"
            raise StoreError(message) from e
        except Exception as e:
            raise StoreError(f"{self._shown}: {first_line(e)}") from e


def _item_key(name: str) -> str:
    return f"{PREFIX}item:{name}"


def _event_key(sequence: str) -> str:
    return f"{PREFIX}event:{sequence}"


def _item(name: str, row: dict[str, str]) -> StoredItem:
    try:
        return StoredItem(*(row[field] for field in StoredItem._fields))
    except KeyError as e:
        raise ValueError(f"{_item_key(name)} is no item: it has no field {e}") from None


def _event(sequence: str, row: dict[str, str]) -> Event:
    try:
        return Event(
            int(sequence),
            row["id"],
            row["kind"],
            row["user"],
            float(row["timestamp"]),
            tuple(row["items"].split(SEPARATOR)),
        )
    except KeyError as e:
        key = _event_key(sequence)
        raise ValueError(f"{key} is no event: it has no field {e}") from None
    except ValueError as e:
        raise ValueError(f"{_event_key(sequence)} is no event: {e}") from None


def shown_address(url: str) -> str:
    """Returns the scheme, host, port and database of an address, without its password.

    An address that is not valid is shown by its scheme alone.
    """
    scheme = url.partition(":")[0]
    try:
        parts = _split_address(url)
    except ValueError:
        return f"{scheme}://"
    place = parts.netloc.rpartition("@")[2]  # without the user and the password
    database = parse_qs(parts.query).get("db", [""])[0]
    if scheme == "unix":
        place += parts.path
    else:
        database = database or parts.path.strip("/")
    return f"{scheme}://{place}" + (f"/{database}" if database.isdecimal() else "")


def _split_address(url: str) -> SplitResult:
    """Splits an address.

    Raises:
      ValueError: the address is not valid.
    """
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError if it is no number
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("a password with /, ? or # was taken for a host")
    return parts
