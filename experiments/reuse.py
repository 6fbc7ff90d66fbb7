"""Finished runs of other sweeps, taken where they are of the same config."""

import os
from collections.abc import Iterable
from pathlib import Path

from experiments.load import resolve
from experiments.plan import OTHER_RUN, Plan
from recjax.errors import UserError
from recjax.workdir import refuse_other_run


def link_finished(plan: Plan, others: Iterable[Path]) -> dict[str, Path]:
    """Links run directories that are not there to finished runs of the same config.

    A run's result depends on its config, seed included, and on the files that this
    names; the table refuses runs whose data differ.

    Args:
      plan: of the sweep.
      others: directories of other sweeps, or that hold some.

    Returns:
      Run directories by what is linked to them, as POINT/SEED.

    Raises:
      UserError: a directory that is not there.
    """
    known: dict[str, Path] = {}
    for other in others:
        if not other.is_dir():
            raise UserError(f"--reuse {other}: is no directory")
        for results in sorted(other.glob("**/results.json")):
            config = results.with_name("config.json")
            if config.exists():
                known.setdefault(
                    config.read_text(encoding="utf-8"), results.parent.resolve()
                )
    linked = {}
    for point, seed in plan.runs():
        folder = plan.folder(point, seed)
        if folder.is_symlink() and not folder.exists():  # to what is gone
            folder.unlink()
        if not known or folder.exists():
            continue
        text = refuse_other_run(resolve(plan.flags(point, seed)), folder, OTHER_RUN)
        if text in known:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Relative, so that both can be moved together.
            there = os.path.relpath(known[text], folder.parent.resolve())
            folder.symlink_to(there, target_is_directory=True)
            linked[f"{point}/{seed}"] = known[text]
    return linked
