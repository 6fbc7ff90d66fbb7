"""Files of what frozen blocks make of texts, found again by what they depend on."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class PrefixStore:
    """A folder of arrays, each in a file that is named by a hash.

    Args:
      folder: made where it is missing.
      dtype: of the arrays, one of `DTYPES`.
      max_bytes: of all files together; those unused for longest go first. 0 neither
        reads nor writes.
      mapped_above: an array of more bytes stays in its file, mapped into memory.
    """

    def __init__(
        self, folder: Path, dtype: str, *, max_bytes: float, mapped_above: float
    ):
        self.folder, self.dtype = folder, DTYPES[dtype]
        self.max_bytes, self.mapped_above = max_bytes, mapped_above

    def load(self, key: str) -> np.ndarray | None:
        """The array of that key; None where there is none, or a damaged file."""
        path = self.folder / f"{key}.npy"
        if not self.max_bytes or not path.exists():
            return None
        mapped = path.stat().st_size > self.mapped_above
        with contextlib.suppress(ValueError, OSError, EOFError):
            array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
            os.utime(path)  # used now
            return self._view(array)
        return None

    def create(self, shape: tuple[int, ...]) -> np.ndarray:
        """Room for an array: in a file without a name yet, or in memory.

        In memory where the disk is full or may not be written.
        """
        size = int(np.prod(shape)) * self.dtype.itemsize
        if size > self.max_bytes:
            return np.zeros(shape, self.dtype)
        raw = self.dtype if self.dtype != DTYPES["bfloat16"] else np.uint16
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            array = np.lib.format.open_memmap(self._part, "w+", raw, shape)
            # A mapped file that finds the disk full later ends the process.
            with self._part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self._part.stat().st_size)
        except OSError:
            self._part.unlink(missing_ok=True)
            return np.zeros(shape, self.dtype)
        return self._view(array)

    def keep(self, key: str, array: np.ndarray) -> np.ndarray:
        """Gives an array of `create` its name; from now on `load` finds it."""
        if not isinstance(array, np.memmap):
            return array
        array.flush()
        self._part.replace(self.folder / f"{key}.npy")
        found = self.load(key)
        assert found is not None
        return found

    @property
    def _part(self) -> Path:
        return self.folder / f".{os.getpid()}.part"

    def _view(self, array: np.ndarray) -> np.ndarray:
        viewed: np.ndarray = array.view(self.dtype)
        return viewed

    def _make_room(self, size: int) -> None:
        for part in self.folder.glob(".*.part"):  # of a process that was killed
            if time.time() - part.stat().st_mtime > 86400:
                part.unlink()
        files = sorted(self.folder.glob("*.npy"), key=lambda p: p.stat().st_mtime)
        total = sum(p.stat().st_size for p in files)
        for path in files:
            if total + size <= self.max_bytes:
                return
            total -= path.stat().st_size
            path.unlink()


def digest(arrays: Iterable[tuple[str, Any]], *settings: Any) -> str:
    """Hash of named arrays, every byte of them, and of settings."""
    total = hashlib.sha256(repr(settings).encode())
    for name, x in arrays:
        array = np.ascontiguousarray(x)
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.view(np.uint8).reshape(-1).data)
    return total.hexdigest()[:32]
