"""Directory locks."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recjax.common.errors import UserError


@contextlib.contextmanager
def directory_lock(folder: Path, otherwise: str) -> Iterator[None]:
    """Keeps others out of a directory.

    Raises:
      UserError: somebody is in it, which `otherwise` says; or it cannot be written.
    """
    path = folder / ".lock"
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    with file:
        if not try_lock(file):
            raise UserError(otherwise)
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is in a run directory."""
    if not (folder / ".lock").exists():
        return False
    with (folder / ".lock").open("r+") as file:
        return not try_lock(file)


def try_lock(file: Any) -> bool:
    """Whether nobody else has the lock of an open file, which is ours then."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
