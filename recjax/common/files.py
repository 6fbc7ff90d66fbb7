"""Cache directory, hashes, and files that appear complete or not at all."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def atomic_files(*paths: Path) -> Iterator[list[Path]]:
    """Where to write; what is written takes the paths' places if all went well.

    Args:
      *paths: files that are there, of a former time, or not.
    """
    parts = [path.with_name(f".part.{path.name}") for path in paths]
    try:
        yield parts
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def cache_dir() -> Path:
    """`$RECJAX_CACHE`, else `$XDG_CACHE_HOME/recjax`, else `~/.cache/recjax`."""
    if own := os.environ.get("RECJAX_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recjax"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def hash_arrays(arrays: Iterable[tuple[str, Any]], *settings: Any) -> str:
    """Hash of named arrays, every byte of them, and of settings."""
    total = hashlib.sha256(repr(settings).encode())
    for name, x in arrays:
        array = np.ascontiguousarray(x)
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.view(np.uint8).reshape(-1).data)
    return total.hexdigest()[:32]
