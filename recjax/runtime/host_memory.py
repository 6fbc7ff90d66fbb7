"""The C library's allocator, told to keep the memory that a step gives back."""

import ctypes
import re
import resource
import sys
from pathlib import Path

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> None:
    """Keeps freed memory in the process, on Linux with glibc; elsewhere does nothing.

    XLA asks for a step's temporaries anew in every step. By default glibc takes each
    from the system and gives it back, so that the system clears every page again:
    a sixth of an encoder's step.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_ARENA_MAX, 1)


def peak_memory() -> int:
    """The most memory that this process has held so far, in MiB."""
    # Linux counts in getrusage also what the process held that started this one.
    status = Path("/proc/self/status")
    if status.exists() and (
        peak := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
    ):
        return int(peak[1]) // 2**10
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held // (2**20 if sys.platform == "darwin" else 2**10)
