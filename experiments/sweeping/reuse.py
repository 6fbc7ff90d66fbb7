"""Finished runs of other sweeps, taken where they are of the same config."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.sweeping.load import PLAN, resolve
from experiments.sweeping.plan import OTHER_RUN, Plan
from recjax.common.errors import UserError
from recjax.run.workdir import check_same_config


def find_finished(plan: Plan, others: Iterable[Path]) -> dict[tuple[str, int], Path]:
    """Finished runs of the same config, in the place of those that are not here.

    A run's result depends on its config, seed included, on the files that this names
    and on the code; the table refuses runs whose data differ, and says which points are
    of other weights or code.

    Args:
      plan: of the sweep.
      others: directories of other sweeps, or that hold some.

    Returns:
      Run directories by point and seed.

    Raises:
      UserError: a directory that is not there.
    """
    known: dict[str, Path] = {}
    for other in others:
        if not other.is_dir():
            raise UserError(f"--reuse {other}: is no directory")
        runs = {*other.glob("**/results.json")}  # which does not look behind links
        for sweep in other.glob(f"**/{PLAN}"):
            runs |= {*sweep.parent.glob("*/*/results.json")}
        for results in sorted(runs):
            config = results.with_name("config.json")
            if config.exists():
                known.setdefault(
                    config.read_text(encoding="utf-8"), results.parent.resolve()
                )
    found = {}
    for each in plan.runs():
        folder = plan.folder(*each)
        if not known or folder.exists():
            continue
        text = check_same_config(resolve(plan.flags(*each)), folder, OTHER_RUN)
        if text in known:
            found[each] = known[text]
    return found


def link(plan: Plan, found: Mapping[tuple[str, int], Path]) -> None:
    """Links to finished runs, and drops links to what is gone.

    Args:
      plan: of the sweep.
      found: see `find_finished`.
    """
    for each in plan.runs():
        folder = plan.folder(*each)
        if folder.is_symlink() and not folder.exists():
            folder.unlink()
        if each in found:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Relative, so that both can be moved together.
            there = os.path.relpath(found[each], folder.parent.resolve())
            folder.symlink_to(there, target_is_directory=True)
