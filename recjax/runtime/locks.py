"""Locks that keep two programs from writing to one directory."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from recjax.common.errors import UserError


@contextlib.contextmanager
def directory_lock(folder: Path, message: str) -> Iterator[None]:
    """Holds the lock of an existing directory.

    Raises:
      UserError: another process holds the lock (with `message`), or the directory is
        not writable.
    """
    # The system releases the lock when the process ends, however it ends.
    path = folder / ".lock"
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    with file:
        if not try_lock(file):
            raise UserError(message)
        yield


def is_locked(folder: Path) -> bool:
    """Returns whether a process holds the lock of a directory."""
    path = folder / ".lock"
    if not path.exists():
        return False
    with path.open("r+") as file:
        return not try_lock(file)


def try_lock(file: IO[Any]) -> bool:
    """Locks an open file; returns False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: the run goes on unlocked
        pass
    return True
