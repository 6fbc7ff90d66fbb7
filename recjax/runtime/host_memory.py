"""Host memory: the settings of the C library's allocator, and the peak usage."""

import ctypes
import re
import resource
import sys
from pathlib import Path

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_ARENA_MAX = -8


def keep_memory() -> None:
    """Makes the allocator keep freed memory; has an effect on Linux with glibc only."""
    # XLA allocates the temporaries of a step again in every step. By default glibc
    # takes each from the system and returns it, so that the system clears every page
    # again: a sixth of the time of an encoder's step.
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_ARENA_MAX, 1)


def peak_memory() -> int:
    """Peak resident memory of this process so far, in MiB."""
    # On Linux getrusage includes the peak of the parent process from before exec.
    status = Path("/proc/self/status")
    if status.exists() and (
        peak := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
    ):
        return int(peak[1]) // 2**10
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum // (2**20 if sys.platform == "darwin" else 2**10)
