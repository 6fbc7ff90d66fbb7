"""Files with the test ranks of one system, which an interrupted run reads again."""

from pathlib import Path

import numpy as np

from recjax.common.files import atomic_files, hash_arrays

DTYPE = np.dtype("<i4")
DIGEST_BYTES = 32


def write_ranks(path: Path, rank_R: np.ndarray) -> None:
    """Writes ranks and their digest, which covers the name of the file too."""
    ranks_R = rank_R.astype(DTYPE)
    with atomic_files(path) as (part,):
        part.write_bytes(ranks_R.tobytes() + _digest(path, ranks_R))


def read_ranks(path: Path, num_rows: int) -> np.ndarray:
    """Reads the ranks that `write_ranks` wrote.

    Raises:
      ValueError: the file is missing or damaged, or has the ranks of another system.
    """
    size = num_rows * DTYPE.itemsize
    if not path.is_file() or path.stat().st_size != size + DIGEST_BYTES:
        raise ValueError("the file is missing, or has another size")
    content = path.read_bytes()
    ranks_R = np.frombuffer(content[:size], DTYPE)
    if content[size:] != _digest(path, ranks_R):
        raise ValueError("the file is damaged")
    return ranks_R


def _digest(path: Path, ranks_R: np.ndarray) -> bytes:
    return hash_arrays([(path.name, ranks_R)]).encode()
