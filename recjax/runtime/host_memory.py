"""Host memory: settings of the C library's allocator, limits, and the peak usage."""

import contextlib
import ctypes
import os
import re
import resource
import sys
from pathlib import Path

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
_KEPT_BYTES = 2**29  # the largest block that is kept
_TUNABLES = "GLIBC_TUNABLES"
_HUGE_PAGES = "glibc.malloc.hugetlb=1"  # since glibc 2.35


def restart_with_settings() -> None:
    """Starts this program again with settings that C libraries read at their start.

    The C library asks for huge pages (Linux with glibc), and OpenBLAS, which numpy
    uses, does not spin while it waits for work. Nothing happens if the environment has
    settings of glibc already.
    """
    # In two pairs of runs fine-tuning took 5% less processor time with huge pages.
    if not sys.platform.startswith("linux") or _TUNABLES in os.environ:
        return
    if not sys.executable:
        return
    os.environ[_TUNABLES] = _HUGE_PAGES
    # By default a thread of OpenBLAS spins for 2**26 cycles. A list of a fused model
    # took 2.8 ms of processor time with that, and 1.6 ms with this.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    with contextlib.suppress(OSError):  # then without the settings
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_memory() -> None:
    """Makes the allocator keep freed memory; has an effect on Linux with glibc only."""
    # XLA allocates the temporaries of a step again in every step. By default glibc
    # takes each from the system and returns it, so that the system clears every page
    # again. Larger blocks are returned: between smaller ones that are allocated after
    # them they would find no room again, and the memory would grow to a multiple.
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_ARENA_MAX, 1)


def available_memory() -> int:
    """Bytes that this process may use: of the machine, its container and its limits."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    soft = [resource.getrlimit(kind)[0] for kind in kinds]
    limits = [limit for limit in soft if limit != resource.RLIM_INFINITY]
    return min([machine, *limits, *_cgroup_limits()])


def _cgroup_limits(
    root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Limits in bytes of the control groups that this process is in, if any."""
    limits = []
    with contextlib.suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            file, base = "memory.max", root
            if "memory" in controllers.split(","):  # version 1
                file, base = "memory.limit_in_bytes", root / "memory"
            folder = base / name.lstrip("/")
            # A limit of a group holds for all groups within it.
            for group in (folder, *folder.parents):
                if group.is_relative_to(base) and (group / file).is_file():
                    text = (group / file).read_text(encoding="utf-8").strip()
                    limits += [int(text)] if text.isdigit() else []
    return limits


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
