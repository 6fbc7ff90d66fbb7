"""Compiled programs on disk, for the next start on the same kind of machine."""

import platform
from pathlib import Path

import jax

from recjax.common.files import cache_dir, sha256

MAX_BYTES = 4 * 2**30  # the programs used least recently go first


def keep_compiled() -> None:
    """Lets XLA look its programs up in the cache, unless JAX was told another place.

    One folder for each processor and version: a program for other instructions than
    the machine has would crash.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    name = sha256(platform_key())[:16]
    folder = cache_dir() / "compiled" / name
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)


def platform_key() -> str:
    """What decides which instructions XLA makes: versions and processor."""
    versions = f"jax {jax.__version__}, jaxlib {jax.lib.__version__}"
    return "\n".join([versions, platform.machine(), _processor()])


def _processor() -> str:
    """The first processor's description, without what changes with time."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return platform.processor()
    changing = ("processor", "cpu MHz", "bogomips", "BogoMIPS", "apicid", "core id")
    return "\n".join(x for x in first.splitlines() if not x.startswith(changing))
