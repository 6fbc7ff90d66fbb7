"""A disk cache of compiled programs, shared by runs on the same kind of machine."""

import os
import platform
from pathlib import Path

import jax

from recjax.common.files import cache_dir, sha256

# Lines of /proc/cpuinfo on x86 and ARM. Others, such as the microcode, differ
# between machines that compute the same.
PROCESSOR_LINES = ("vendor", "cpu family", "model", "cache", "flags", "CPU", "Features")
MAX_BYTES = 4 * 2**30  # above it the least recently used programs are deleted


def enable_compile_cache() -> str:
    """Turns JAX's compilation cache on, unless the user has chosen a directory.

    Returns:
      A warning if the cache directory cannot be used, otherwise "".
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return ""
    # Each processor and version has a directory of its own: a program with instructions
    # that the machine lacks would crash.
    folder = cache_dir() / "compiled" / sha256(platform_key())[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as e:
        problem = str(e.strerror)
    if problem:
        return (
            f"cache {folder}: {problem}; compiled programs are not kept for later "
            "runs; set RECJAX_CACHE to a writable directory"
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    return ""


def platform_key() -> str:
    """Describes what decides which instructions XLA emits: versions and processor."""
    versions = f"jax {jax.__version__}, jaxlib {jax.lib.__version__}"
    return "\n".join([versions, platform.machine(), _processor()])


def _processor() -> str:
    """Describes the first processor: its model, caches and instructions."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return platform.processor()
    lines = [line for line in first.splitlines() if line.startswith(PROCESSOR_LINES)]
    return "\n".join(lines)
