"""Finished runs of other sweeps, taken where they are of the same config."""

from collections.abc import Iterable
from pathlib import Path

from experiments.plan import Plan, resolve
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
                known.setdefault(config.read_text(), results.parent.resolve())
    linked = {}
    for point, seed in plan.runs() if known else ():
        folder = plan.folder(point, seed)
        text = refuse_other_run(resolve(plan.flags(point, seed)), folder)
        if text in known and not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(known[text], target_is_directory=True)
            linked[f"{point}/{seed}"] = known[text]
    return linked
