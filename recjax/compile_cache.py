"""Compiled programs on disk, for the next start on the same kind of machine."""

import hashlib
import platform
from pathlib import Path

import jax

from recjax.data.sources import cache_dir


def keep_compiled() -> None:
    """Lets XLA look its programs up in the cache, unless JAX was told another place.

    One folder for each processor and version: a program for other instructions than
    the machine has would crash.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    kind = [jax.__version__, platform.machine(), _processor()]
    name = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]
    folder = cache_dir() / "compiled" / name
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(x for x in lines[:40] if x.startswith(("model name", "flags")))
