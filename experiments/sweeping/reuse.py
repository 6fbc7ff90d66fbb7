"""Links finished runs of other sweeps that have the same config."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.sweeping.load import PLAN, resolve
from experiments.sweeping.plan import OTHER_RUN, Plan
from recjax.common.errors import UserError
from recjax.run.workdir import check_same_config


def find_finished(plan: Plan, others: Iterable[Path]) -> dict[tuple[str, int], Path]:
    """Finds finished runs of other sweeps for the runs that this sweep has not started.

    The result of a run depends on its config, which includes the seed, on the files
    that the config names, and on the code. `experiments.collect` refuses runs whose
    data differ, and reports which variants have other weights or were made by other
    code.

    Args:
      plan: the sweep.
      others: directories of other sweeps, or directories that contain such.

    Returns:
      Run directories by variant and seed.

    Raises:
      UserError: a directory does not exist.
    """
    known: dict[str, Path] = {}
    for other in others:
        if not other.is_dir():
            raise UserError(f"--reuse {other}: is not a directory")
        runs = {*other.glob("**/results.json")}  # does not follow links
        for sweep in other.glob(f"**/{PLAN}"):
            runs |= {*sweep.parent.glob("*/*/results.json")}
        for results in sorted(runs):
            config = results.with_name("config.json")
            if config.exists():
                known.setdefault(
                    config.read_text(encoding="utf-8"), results.parent.resolve()
                )
    found = {}
    for run in plan.runs():
        folder = plan.folder(*run)
        if not known or folder.exists():
            continue
        text = check_same_config(resolve(plan.flags(*run)), folder, OTHER_RUN)
        if text in known:
            found[run] = known[text]
    return found


def link(plan: Plan, found: Mapping[tuple[str, int], Path]) -> None:
    """Creates the links to finished runs, and removes links whose target is gone.

    Args:
      plan: the sweep.
      found: run directories as returned by `find_finished`.
    """
    for run in plan.runs():
        folder = plan.folder(*run)
        if folder.is_symlink() and not folder.exists():
            folder.unlink()
        if run in found:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Relative links survive moving both directories together.
            target = os.path.relpath(found[run], folder.parent.resolve())
            folder.symlink_to(target, target_is_directory=True)
