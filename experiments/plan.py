"""What a sweep is to run, and whose directories these are."""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.ablations.reference import Changes
from experiments.command import refuse_other
from experiments.load import PLAN, check_arguments, load_sweep, read_plan, resolve
from experiments.pool import Job, usable_cores
from recjax.errors import UserError
from recjax.workdir import refuse_other_run


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
      config: file.
      data: a data set of the config, or "".
      points: changes by name, the reference first.
      arguments: for every run.
    """

    config: str
    data: str
    points: dict[str, Changes]
    seeds: list[int]
    arguments: list[str]
    out: Path

    def runs(self) -> list[tuple[str, int]]:
        """All points with one seed, then with the next."""
        return [(point, seed) for seed in self.seeds for point in self.points]

    def folder(self, point: str, seed: int) -> Path:
        """The run directory."""
        return self.out / point / str(seed)

    def flags(self, point: str, seed: int) -> list[str]:
        """The flags of a run that make its config."""
        at = f"@{self.data}" if self.data else ""
        made = [f"--config={self.config}:{point}{at}", f"--config.seed={seed}"]
        return [*made, *self.arguments]

    def job(self, point: str, seed: int) -> Job:
        """The run as a process."""
        command = [sys.executable, "-m", "recjax.main", *self.flags(point, seed)]
        command.append(f"--workdir={self.folder(point, seed)}")
        return Job(
            f"{point} {seed}", command, self.out / "logs" / f"{point}-{seed}.txt"
        )


def make_plan(args: argparse.Namespace, arguments: list[str]) -> Plan:
    """Checks what is asked, and adds it to what the directory has, `sweep.json`.

    Raises:
      UserError: what can run in no point, or does not fit what was run here.
    """
    known = load_sweep(args.config)
    if unknown := [point for point in args.points or () if point not in known]:
        raise UserError(
            f"--points: no {unknown[0]!r} in {args.config}; there are "
            f"{', '.join(known)}"
        )
    if not 1 <= args.jobs <= (cores := len(usable_cores())):
        raise UserError(f"--jobs: {args.jobs} is not between 1 and {cores} cores")
    if len(set(args.seeds)) < len(args.seeds) or min(args.seeds) < 0:
        raise UserError(f"--seeds: {args.seeds} are not different and at least 0")
    check_arguments(arguments)
    asked, seeds = set(args.points or known), set(args.seeds)
    same = {"config": args.config, "data": args.data, "arguments": arguments}
    if (args.out / PLAN).exists():
        before = read_plan(args.out)
        refuse_other(before, same, args.out)
        if gone := [name for name in before["points"] if name not in known]:
            print(f"note: {args.config} has no {', '.join(gone)} any more; left out")
        asked, seeds = asked | set(before["points"]), seeds | set(before["seeds"])
    points = {name: changes for name, changes in known.items() if name in asked}
    plan = Plan(args.config, args.data, points, sorted(seeds), arguments, args.out)
    for point, seed in plan.runs():
        refuse_other_run(resolve(plan.flags(point, seed)), plan.folder(point, seed))
    plain = {name: {k: _plain(x) for k, x in c.items()} for name, c in points.items()}
    found = {**same, "points": plain, "seeds": plan.seeds}
    part = args.out / f".{PLAN}.part"
    part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    os.replace(part, args.out / PLAN)
    return plan


def _plain(value: Any) -> Any:
    """A config value as JSON."""
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, tuple | list) else value
