"""Content-addressed disk cache of frozen-encoder outputs."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from recjax.common.errors import UserError
from recjax.common.files import file_sha256

GIB = 2**30
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16}
CHECKSUM_BYTES = 32  # SHA-256 at the end of each file
ABANDONED_SECONDS = 86400  # a partial file this old belongs to a killed process

Allocate = Callable[[tuple[int, ...]], np.ndarray]


class PrefixCache:
    """A directory of arrays; each file is named by a hash of its array's inputs.

    Each file ends with the SHA-256 of its other bytes, so a damaged file is detected
    and computed again. A new array is first written to a partial file; `commit` renames
    it when it is complete.

    Args:
      folder: created on first use.
      dtype: number format of the arrays, one of `DTYPES`.
      max_bytes: size limit of all files; the least recently used are deleted first. 0
        disables reading and writing.
      mapped_above: larger arrays, in bytes, stay in their file, mapped into memory.
    """

    def __init__(
        self, folder: Path, dtype: str, *, max_bytes: float, mapped_above: float
    ):
        self.folder = folder
        self.dtype = DTYPES[dtype]
        self.max_bytes = max_bytes
        self.mapped_above = mapped_above
        self._partial: Path | None = None

    def path(self, key: str) -> Path:
        """Path of a key's file, which may not exist."""
        return self.folder / f"{key}.npy"

    def load(self, key: str) -> np.ndarray | None:
        """Returns a key's array, or None if its file is missing or damaged."""
        if not self.max_bytes:
            return None
        path = self.path(key)
        with contextlib.suppress(ValueError, OSError, EOFError):
            with path.open("rb") as file:
                file.seek(-CHECKSUM_BYTES, os.SEEK_END)
                checksum = file.read().hex()
            if file_sha256(path, skip_last=CHECKSUM_BYTES) != checksum:
                return None
            with contextlib.suppress(OSError):  # a read-only cache is used as well
                os.utime(path)  # the eviction order is by last use
            return self._load_if_small(np.load(path, mmap_mode="r", allow_pickle=False))
        return None

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """Creates an array to fill: in a partial file, or else in memory.

        Raises:
          UserError: the array fits neither on the disk nor in memory.
        """
        num_bytes = int(np.prod(shape)) * self.dtype.itemsize
        if num_bytes <= self.max_bytes:
            # A full or read-only disk is no error while the array fits in memory.
            with contextlib.suppress(OSError):
                return self._create_file(shape, num_bytes)
            self.discard()
        if num_bytes > self.mapped_above:
            raise UserError(
                f"the frozen prefix takes {num_bytes / GIB:.1f} GiB, more than "
                f"text.cache_ram_gib ({self.mapped_above / GIB:g}), and {self.folder} "
                "cannot hold a file of this size; raise text.cache_ram_gib or "
                f"text.cache_disk_gib ({self.max_bytes / GIB:g}), or free disk space"
            )
        return np.zeros(shape, self.dtype)

    def commit(self, key: str, array: np.ndarray) -> np.ndarray:
        """Saves an array from `allocate` if it lies in a file; returns its values."""
        if self._partial is None or not isinstance(array, np.memmap):
            return array
        try:
            array.flush()
            checksum = bytes.fromhex(file_sha256(self._partial))
            with self._partial.open("ab") as file:
                file.write(checksum)
            self._partial.replace(self.path(key))
            self._partial = None
        except OSError:
            self.discard()  # the array stays mapped and readable
        return self._load_if_small(array)

    def discard(self) -> None:
        """Deletes the partial file, if `commit` has not renamed it."""
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = None

    def _load_if_small(self, array: np.ndarray) -> np.ndarray:
        """Reads a mapped array into memory if it is small enough."""
        array = array.view(self.dtype)
        return array if array.nbytes > self.mapped_above else np.array(array)

    def _create_file(self, shape: tuple[int, ...], num_bytes: int) -> np.ndarray:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(num_bytes)
        # Other processes may write the same key now, each to its own partial file.
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        os.close(handle)
        self._partial = Path(name)
        # The .npy format has no bfloat16; its bits are stored as integers.
        stored = np.uint16 if self.dtype == BFLOAT16 else self.dtype
        array = np.lib.format.open_memmap(self._partial, "w+", stored, shape)
        # Reserve the blocks now: writing to a mapped file on a full disk is a SIGBUS,
        # which ends the process.
        if hasattr(os, "posix_fallocate"):
            with self._partial.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self._partial.stat().st_size)
        return array.view(self.dtype)

    def _make_room(self, num_bytes: int) -> None:
        """Deletes abandoned partial files, then the least recently used arrays."""
        files = []
        for path in (*self.folder.glob("*.npy"), *self.folder.glob("*.part")):
            # Another process may delete files while we list them.
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for modified, size, path in sorted(files):
            delete = total + num_bytes > self.max_bytes
            if path.suffix == ".part":
                delete = time.time() - modified > ABANDONED_SECONDS
            if delete:
                path.unlink(missing_ok=True)
                total -= size
