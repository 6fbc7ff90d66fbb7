"""What a result was made with, beside its config and data: libraries and code."""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "grain", "polars", "numpy")


def versions() -> dict[str, str]:
    """Of the libraries that results depend on."""
    return {name: version(name) for name in LIBRARIES}


def usable_cores() -> list[int]:
    """Those that this process may run on; seconds depend on them, last bits may."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _digest_code() -> str:
    """Of this package's modules, 12 hexadecimal digits."""
    found, here = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(here.rglob("*.py")):
        text = path.read_bytes()
        found.update(f"{path.relative_to(here).as_posix()} {len(text)}\n".encode())
        found.update(text)
    return found.hexdigest()[:12]


CODE = _digest_code()  # when the process began, whatever is edited while it runs
