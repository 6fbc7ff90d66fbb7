"""A store in Redis, for services that share one."""

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from recjax.common.errors import UserError
from recjax.serving.store import (
    SEPARATOR,
    Event,
    NewEvent,
    StoredItem,
    StoreError,
)

PREFIX = "recjax:"
REDIS = ("redis://", "rediss://", "unix://")  # addresses
TIMEOUT = 5.0  # seconds
# Stores an event once: its sequence, its fields, and its place in two lists.
ADD = """
local known = redis.call('hget', KEYS[1], ARGV[1])
if known then return tonumber(known) end
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
        except ImportError:
            raise UserError(
                "store: Redis needs the library redis: pip install 'recjax[serve]'"
            ) from None
        self.url = url
        try:
            self._db = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
            )
            self._db.ping()
        except (redis.RedisError, ValueError, OSError) as e:
            raise UserError(f"store {_without_password(url)}: {e}") from None
        self._errors = (redis.RedisError, OSError)
        self._add = self._db.register_script(ADD)
        # One thread, so that a read follows the writes before it.
        self._thread = ThreadPoolExecutor(1, "store")

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
        return self._submit(
            lambda: int(self._add([PREFIX + key for key in keys], values))
        )

    def history(self, user: str, after: int = 0) -> "Future[list[Event]]":
        return self._submit(lambda: self._read(f"user:{user}", after, None))

    def events(self, after: int, limit: int) -> "Future[list[Event]]":
        return self._submit(lambda: self._read("events", after, limit))

    def last_sequence(self) -> "Future[int]":
        return self._submit(lambda: int(self._db.get(PREFIX + "sequence") or 0))

    def put_items(self, items: Sequence[StoredItem]) -> "Future[None]":
        def job() -> None:
            pipe = self._db.pipeline(transaction=True)
            for item in items:
                position = self._db.incr(PREFIX + "positions")
                pipe.zadd(PREFIX + "items", {item.id: position}, nx=True)
                pipe.hset(PREFIX + f"item:{item.id}", mapping=item._asdict())
            pipe.execute()

        return self._submit(job)

    def items(self) -> "Future[list[StoredItem]]":
        def job() -> list[StoredItem]:
            pipe = self._db.pipeline(transaction=False)
            for name in self._db.zrange(PREFIX + "items", 0, -1):
                pipe.hgetall(PREFIX + f"item:{name}")
            return [StoredItem(**found) for found in pipe.execute() if found]

        return self._submit(job)

    def item(self, name: str) -> "Future[StoredItem | None]":
        def job() -> StoredItem | None:
            found = self._db.hgetall(PREFIX + f"item:{name}")
            return StoredItem(**found) if found else None

        return self._submit(job)

    def close(self) -> None:
        self._thread.shutdown()
        self._db.close()

    def _read(self, key: str, after: int, limit: int | None) -> list[Event]:
        part = {} if limit is None else {"start": 0, "num": limit}
        found = self._db.zrangebyscore(PREFIX + key, f"({after}", "+inf", **part)
        pipe = self._db.pipeline(transaction=False)
        for sequence in found:
            pipe.hgetall(f"{PREFIX}event:{sequence}")
        return [
            Event(
                int(sequence),
                row["id"],
                row["kind"],
                row["user"],
                float(row["timestamp"]),
                tuple(row["items"].split(SEPARATOR)),
            )
            for sequence, row in zip(found, pipe.execute(), strict=True)
        ]

    def _submit(self, job: Callable[[], Any]) -> "Future[Any]":
        def guarded() -> Any:
            try:
                return job()
            except self._errors as e:
                raise StoreError(f"{_without_password(self.url)}: {e}") from None

        return self._thread.submit(guarded)


def _without_password(url: str) -> str:
    """Hides the password of an address."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


def open_store(name: str, option: str, *, create: bool = True) -> Any:
    """Opens a store by its name: a path of an SQLite file, or an address of Redis.

    Args:
      name: the path or the address.
      option: the option that holds it, for errors.
      create: whether an SQLite file that does not exist is created.

    Raises:
      UserError: it cannot be opened.
    """
    from recjax.common.files import user_path
    from recjax.serving.store import SqliteStore

    if name.startswith(REDIS):
        return RedisStore(name)
    if "://" in name:
        known = ", ".join(REDIS)
        raise UserError(f"{option}: {name!r} begins with none of {known}")
    path = user_path(name, option)
    if path.is_dir():
        raise UserError(f"{option}: {path}: is a directory")
    if not path.parent.is_dir():
        raise UserError(f"{option}: {path.parent}: no such directory")
    if not create and not path.exists():
        raise UserError(f"{option}: {path}: no such file")
    return SqliteStore(path)
