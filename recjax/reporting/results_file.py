"""Checks of `results.json`, the results of a finished run."""

from pathlib import Path
from typing import Any

from recjax.common.errors import UserError

# Keys of a phase that have been renamed; every older file has one of them.
OLD_PHASE_KEYS = {"buckets", "beyond", "memory"}


def check_results_version(path: Path, results: Any) -> None:
    """Raises UserError if an older version of recjax wrote the content of a file."""
    # Content that no version of recjax wrote is left to the caller.
    if not isinstance(results, dict):
        return
    phases = results.get("phases")
    entries = phases.values() if isinstance(phases, dict) else ()
    keys = {key for entry in entries if isinstance(entry, dict) for key in entry}
    if "before" in results or keys & OLD_PHASE_KEYS:
        raise UserError(
            f"{path}: written by an older version of recjax; run it again in another "
            "--workdir"
        )


def is_interval(value: Any) -> bool:
    """Returns whether a value of `results.json` is a metric with its interval."""
    return isinstance(value, dict) and all(
        isinstance(value.get(key), int | float) for key in ("value", "low", "high")
    )
