"""Files of what frozen blocks make of texts, found again by what they depend on."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from recjax.common.errors import UserError
from recjax.common.files import file_sha256

GIB = 2**30
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class PrefixCache:
    """A folder of arrays, each in a file that is named by a hash.

    A file ends with the SHA-256 of what stands before.

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
        self._part: Path | None = None  # a file without a name yet

    def load(self, key: str) -> np.ndarray | None:
        """The array of that key; None where there is none, or a damaged file."""
        path = self.folder / f"{key}.npy"
        if not self.max_bytes:
            return None
        with contextlib.suppress(ValueError, OSError, EOFError):
            if file_sha256(path, skip_last=32) != _stored_digest(path):
                return None
            os.utime(path)  # used now
            mapped = path.stat().st_size > self.mapped_above
            array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
            return self._view(array)
        return None

    def create(self, shape: tuple[int, ...]) -> np.ndarray:
        """Room for an array: in a file without a name yet, or in memory.

        In memory where the disk is full or may not be written.

        Raises:
          UserError: no file can hold it, and it is too large for memory.
        """
        size = int(np.prod(shape)) * self.dtype.itemsize
        if size <= self.max_bytes:
            with contextlib.suppress(OSError):
                return self._view(self._create_file(shape, size))
            self.discard()
        if size > self.mapped_above:
            raise UserError(
                f"the frozen prefix takes {size / GIB:.1f} GiB, more than "
                f"text.cache_ram_gib ({self.mapped_above / GIB:g}), and there is no "
                f"room for a file of it in {self.folder} (text.cache_disk_gib "
                f"{self.max_bytes / GIB:g})"
            )
        return np.zeros(shape, self.dtype)

    def keep(self, key: str, array: np.ndarray) -> np.ndarray:
        """Gives an array of `create` its name; from now on `load` finds it."""
        if self._part is None or not isinstance(array, np.memmap):
            return array
        try:
            array.flush()
            digest = bytes.fromhex(file_sha256(self._part))
            with self._part.open("ab") as file:
                file.write(digest)
            self._part.replace(self.folder / f"{key}.npy")
            self._part = None
        except OSError:
            self.discard()  # what is mapped can still be read
        return array if array.nbytes > self.mapped_above else np.array(array)

    def discard(self) -> None:
        """Deletes a file that `create` made and `keep` has not named."""
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None

    def _create_file(self, shape: tuple[int, ...], size: int) -> np.ndarray:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(size)
        # Another process may fill one of its own: the name is nobody else's.
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        os.close(handle)
        self._part = Path(name)
        raw = self.dtype if self.dtype != DTYPES["bfloat16"] else np.uint16
        array = np.lib.format.open_memmap(self._part, "w+", raw, shape)
        # A mapped file that finds the disk full later ends the process.
        if hasattr(os, "posix_fallocate"):
            with self._part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self._part.stat().st_size)
        return array

    def _view(self, array: np.ndarray) -> np.ndarray:
        viewed: np.ndarray = array.view(self.dtype)
        return viewed

    def _make_room(self, size: int) -> None:
        found = []  # age and size of what is there and stays there while we look
        for path in (*self.folder.glob("*.npy"), *self.folder.glob("*.part")):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(bytes_ for _, bytes_, _ in found)
        for changed, bytes_, path in sorted(found):
            part = path.suffix == ".part"  # a day later of a process that was killed
            old = part and time.time() - changed > 86400
            if old or (not part and total + size > self.max_bytes):
                path.unlink(missing_ok=True)
                total -= bytes_


def _stored_digest(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(-32, os.SEEK_END)
        return file.read().hex()
