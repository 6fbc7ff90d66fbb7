"""Cache directory, hashes, and files that appear complete or not at all."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def atomic_files(*paths: Path, sync: bool = False) -> Iterator[list[Path]]:
    """Yields temporary paths to write to, and renames them to `paths` on success.

    A reader finds the old file or the new one and never a part of it. On an exception
    the old files stay and the temporary ones are deleted. Only one process at a time
    may write them. With `sync` the new files are complete even after a power failure.
    """
    # In the same directory, because a rename is atomic only within a file system. The
    # suffix stays at the end, because some writers choose their format by it.
    parts = [path.with_name(f".part.{path.name}") for path in paths]
    try:
        yield parts
        for part, path in zip(parts, paths, strict=True):
            if sync:
                with part.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str, *, sync: bool = False) -> None:
    """Writes a UTF-8 file that appears complete or not at all; see `atomic_files`."""
    with atomic_files(path, sync=sync) as (part,):
        part.write_text(text, encoding="utf-8")


def cache_dir() -> Path:
    """Returns `$RECJAX_CACHE`, `$XDG_CACHE_HOME/recjax` or `~/.cache/recjax`."""
    if own := os.environ.get("RECJAX_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recjax"


def sha256(content: str | bytes) -> str:
    """SHA-256 of a text (as UTF-8) or of bytes, in hexadecimal digits."""
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(raw).hexdigest()


def file_sha256(path: Path, *, skip_last: int = 0) -> str:
    """SHA-256 of a file in hexadecimal digits, without its last `skip_last` bytes."""
    remaining = path.stat().st_size - skip_last
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while remaining > 0 and (chunk := file.read(min(remaining, 2**20))):
            digest.update(chunk)
            remaining -= len(chunk)
    return digest.hexdigest()


def hash_arrays(arrays: Iterable[tuple[str, Any]], *settings: Any) -> str:
    """Hash of settings and of arrays with their names, in 32 hexadecimal digits."""
    digest = hashlib.sha256(repr(settings).encode())
    # Every byte of an array counts, and so do its name, its dtype and its shape.
    for name, x in arrays:
        array = np.ascontiguousarray(x)
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()[:32]
