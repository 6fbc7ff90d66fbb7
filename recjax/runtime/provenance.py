"""The code, libraries and cores that a result was computed with."""

import os
from importlib.metadata import version
from pathlib import Path

from recjax.common.files import sha256

_PACKAGE = Path(__file__).parents[1]
# A digest of this package's modules, in 12 hexadecimal digits; computed at import,
# because files may be edited while a run goes on.
CODE = sha256(
    "\n".join(
        f"{path.relative_to(_PACKAGE).as_posix()} {sha256(path.read_bytes())}"
        for path in sorted(_PACKAGE.rglob("*.py"))
    )
)[:12]
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "grain", "polars", "numpy")


def versions() -> dict[str, str]:
    """Versions of the libraries that results depend on."""
    return {name: version(name) for name in LIBRARIES}


def usable_cores() -> list[int]:
    """Cores that this process may run on."""
    # Run times depend on their number, and so may the last bits of results.
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
