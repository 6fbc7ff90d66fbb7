"""Checks of `results.json`, the results of a finished run."""

from pathlib import Path
from typing import Any

from recjax.common.errors import UserError

# Keys of a phase that have been renamed; every older file has one of them.
OLD_PHASE_KEYS = ("buckets", "beyond", "memory")


def check_results_version(path: Path, results: Any) -> None:
    """Raises UserError if an older version of recjax wrote a `results.json`.

    Args:
      path: path of the file, for the message.
      results: content of the file; anything else than a dict is left to the caller.
    """
    if not isinstance(results, dict):
        return
    phases = results.get("phases")
    entries = list(phases.values()) if isinstance(phases, dict) else []
    old = "before" in results or any(
        key in entry
        for entry in entries
        if isinstance(entry, dict)
        for key in OLD_PHASE_KEYS
    )
    if old:
        raise UserError(
            f"{path}: written by an older version of recjax; run it again in another "
            "--workdir"
        )
