"""Directories that recjax writes to: their mark, and a lock against other programs.

The file `.recjax` marks a directory as one of recjax. Its content names the kind of
directory and the process that uses it, which holds a lock on the file.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from recjax.common.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MARK = ".recjax"
IGNORED = ("lost+found",)  # in the root of a new file system


class DirectoryLock:
    """A lock that this process holds on a marked directory."""

    def __init__(self, folder: Path, file: IO[str]):
        self.folder = folder
        self._file = file

    def check(self) -> None:
        """Checks that the directory still has the mark that this process has locked.

        Raises:
          UserError: the directory or its mark was deleted or replaced.
        """
        try:
            current = os.stat(self.folder / MARK)
        except OSError:
            current = None
        if current is None or not os.path.samestat(
            current, os.fstat(self._file.fileno())
        ):
            raise UserError(
                f"{self.folder}: the directory, or the file {MARK} in it, was deleted "
                "or replaced while this program was using it; nothing more is written"
            )


def check_directory(folder: Path, kind: str, option: str) -> None:
    """Checks that a directory does not exist, is empty, or has the mark of this kind.

    Args:
      folder: the directory.
      kind: what recjax writes to it, such as "run".
      option: the option that names it, for errors.

    Raises:
      UserError: it belongs to something else, or cannot be read.
    """
    try:
        if (folder / MARK).is_symlink():
            raise UserError(
                f"{option} {folder}: its {MARK} is a symbolic link; delete it"
            )
        if (folder / MARK).is_file():
            other = _read_owner(folder).get("kind", kind)
            if other != kind:
                raise UserError(
                    f"{option} {folder}: is marked as a directory of kind {other!r}, "
                    f"not {kind!r}; choose another one"
                )
            return
        names = {path.name for path in folder.iterdir()} - {*IGNORED}
    except FileNotFoundError:
        return
    except OSError as e:
        raise UserError(f"{option} {folder}: {e.strerror}") from None
    if names:
        first = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        raise UserError(
            f"{option} {folder}: is not empty ({first}) and was not made by recjax; "
            f"choose another one, or create the file {MARK} in it to allow recjax to "
            "overwrite files there"
        )


@contextlib.contextmanager
def directory_lock(folder: Path, kind: str, option: str) -> Iterator[DirectoryLock]:
    """Creates and marks a directory, if needed, and holds its lock.

    The arguments are those of `check_directory`.

    Raises:
      UserError: another process holds the lock, the directory belongs to something
        else, or it cannot be written.
    """
    check_directory(folder, kind, option)
    path = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as e:
        raise UserError(f"{option} {folder}: {e.strerror}") from None
    # The system releases the lock when the process ends, however it ends.
    with file:
        if not try_lock(file):
            process = _read_owner(folder).get("process", "another program")
            raise UserError(f"{option} {folder}: {process} is using it")
        file.truncate(0)
        process = f"process {os.getpid()} on {socket.gethostname()}"
        owner = {"kind": kind, "process": process}
        file.write(json.dumps(owner) + "\n")
        file.flush()
        yield DirectoryLock(folder, file)


def is_locked(folder: Path) -> bool:
    """Returns whether a process holds the lock of a directory."""
    path = folder / MARK
    if not path.exists():
        return False
    with path.open("r+") as file:
        return not try_lock(file)


def try_lock(file: IO[Any]) -> bool:
    """Locks an open file; returns False if another process holds the lock."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: the run goes on unlocked
        pass
    return True


def _read_owner(folder: Path) -> dict[str, Any]:
    """Reads the mark of a directory; a mark without valid content gives {}."""
    try:
        owner = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}
