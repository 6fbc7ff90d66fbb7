"""Opens an event store by its name."""

import re
from pathlib import Path

from recjax.common.errors import UserError
from recjax.common.files import user_path
from recjax.serving.redis_store import REDIS, RedisStore, shown_address
from recjax.serving.sqlite_store import SqliteStore
from recjax.serving.store import Store

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)?:", re.IGNORECASE)


def open_store(name: str, option: str, *, create: bool = True) -> Store:
    """Opens a store by its name: a path of an SQLite file, or an address of Redis.

    Args:
      name: the path or the address.
      option: the option that holds it, for errors.
      create: whether an SQLite file that does not exist, or is empty, becomes a store.

    Raises:
      UserError: it cannot be opened.
    """
    scheme, found, rest = name.partition("://")
    if found:
        address = scheme.lower() + found + rest
        if not address.startswith(REDIS):
            known = ", ".join(REDIS)
            shown = shown_address(name)
            raise UserError(f"{option}: {shown!r} begins with none of {known}")
        return RedisStore(address)
    if start := ADDRESS.match(name):
        raise UserError(
            f"{option}: {start[0]!r} begins an address, which needs // after it; "
            "write ./NAME for a file with a colon in its name"
        )
    path = user_path(name, option)
    try:
        _check_path(path, option, create)
    except OSError as e:
        raise UserError(f"{option}: {path}: {e.strerror}") from None
    return SqliteStore(path, create=create)


def _check_path(path: Path, option: str, create: bool) -> None:
    if path.is_dir():
        raise UserError(f"{option}: {path}: is a directory")
    if not path.parent.is_dir():
        raise UserError(f"{option}: {path.parent}: no such directory")
    if path.exists() and not path.is_file():
        raise UserError(f"{option}: {path}: is not a regular file")
    if not create and not path.exists():
        raise UserError(f"{option}: {path}: no such file")
