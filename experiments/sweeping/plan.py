"""What a sweep is to run, and what of that cannot run or cannot be compared."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.ablations.reference import Changes
from experiments.sweeping.command import check_same_arguments
from experiments.sweeping.load import (
    PLAN,
    STUDY,
    check_arguments,
    is_finished,
    load_sweep,
    read_plan,
    resolve,
)
from experiments.sweeping.pool import Job
from recjax.common.config import flat_config
from recjax.common.errors import UserError
from recjax.common.files import atomic_files
from recjax.config.validate import check_config
from recjax.data.splits import load_data
from recjax.run.workdir import check_same_config
from recjax.runtime.provenance import usable_cores

OTHER_RUN = "delete that run, or choose another --out"
# Keys of `data` that change no protocol.
TRAINING = {
    f"data.{x}" for x in ("shuffle_ties", "reverse", "windows", "strict", "user_table")
}


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
      config: file.
      data: a data set of the config, or "".
      points: changes by name, the reference first.
      arguments: for every run.
      protocols: what decides about each point's protocol, as text.
      refused: why, of points that cannot run.
    """

    config: str
    data: str
    points: dict[str, Changes]
    seeds: list[int]
    arguments: list[str]
    out: Path
    protocols: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

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
    """Checks what is asked, together with what the directory has, `sweep.json`.

    Raises:
      UserError: what can run in no point, or does not fit what was run here.
    """
    known = load_sweep(args.config)
    if unknown := [point for point in args.points or () if point not in known]:
        raise UserError(
            f"--points: no {unknown[0]!r} in {args.config}; there are "
            f"{', '.join(known)}"
        )
    check_runs(args.seeds, args.jobs)
    check_arguments(arguments)
    if (args.out / STUDY).exists():
        raise UserError(f"--out {args.out}: holds a search; choose another")
    asked, seeds = set(args.points or known), set(args.seeds)
    same = {"config": args.config, "data": args.data, "arguments": arguments}
    if (args.out / PLAN).exists():
        before = read_plan(args.out)
        check_same_arguments(before, same, args.out)
        if gone := [name for name in before["points"] if name not in known]:
            print(f"note: {args.config} has no {', '.join(gone)} any more; left out")
        asked, seeds = asked | set(before["points"]), seeds | set(before["seeds"])
    points = {name: changes for name, changes in known.items() if name in asked}
    plan = Plan(args.config, args.data, points, sorted(seeds), arguments, args.out)
    configs = {each: resolve(plan.flags(*each)) for each in plan.runs()}
    for (point, _), config in configs.items():
        plan.protocols[point] = str(protocol_of(config))
    for each, config in configs.items():
        check_same_config(config, plan.folder(*each), OTHER_RUN)
        try:
            check_config(config)
        except UserError as e:
            plan.refused[each[0]] = str(e)
    left = {x: c for x, c in configs.items() if not is_finished(plan.folder(*x))}
    check_data(plan, left)
    if len(plan.refused) == len(points):
        raise UserError(why_all(plan.refused))
    print_plan(plan, {point: config for (point, _), config in configs.items()})
    return plan


def check_data(plan: Plan, configs: Mapping[tuple[str, int], Any]) -> None:
    """Notes which points have data, or texts, that cannot be read.

    Args:
      plan: of the sweep.
      configs: resolved, of the runs that are left.
    """
    known: dict[str, str] = {}
    for (point, _), config in configs.items():
        if point in plan.refused:
            continue
        text = "text" in config.item_tower.sources
        template = config.text.template if text else ""
        key = config.data.to_json() + template
        if key not in known:
            known[key] = ""
            try:
                load_data(config).render(template)
            except UserError as e:
                known[key] = str(e)
        if known[key]:
            plan.refused[point] = known[key]


def why_all(refused: Mapping[str, str]) -> str:
    """Why no point can run, once where it is the same of all."""
    if len(why := {*refused.values()}) == 1:
        return f"{', '.join(refused)}: {why.pop()}"
    return "; ".join(f"{k}: {why}" for k, why in refused.items())


def save_plan(plan: Plan) -> None:
    """Writes `sweep.json`."""
    points = {
        name: {key: _plain(x) for key, x in changes.items()}
        for name, changes in plan.points.items()
    }
    found = {
        "config": plan.config,
        "data": plan.data,
        "arguments": plan.arguments,
        "points": points,
        "seeds": plan.seeds,
    }
    with atomic_files(plan.out / PLAN) as (path,):
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def check_runs(seeds: Sequence[int], jobs: int) -> None:
    """Raises UserError at seeds, or a number of runs at a time, that cannot be."""
    cores = len(usable_cores())
    if not 1 <= jobs <= cores:
        raise UserError(f"--jobs: {jobs} is not between 1 and {cores} cores")
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"--seeds: {list(seeds)} are not different and at least 0")


def print_plan(plan: Plan, configs: Mapping[str, Any]) -> None:
    """Says which points cannot run, are one, or cannot stand beside the first.

    Args:
      plan: with what was refused.
      configs: resolved, by point.
    """
    for point, why in plan.refused.items():
        print(f"note: {point} cannot run: {why}")
    same: dict[str, str] = {}
    for point, config in configs.items():
        other = same.setdefault(config.to_json(), point)
        if other != point:
            print(f"note: {point} and {other} are the same config, so the same run")
    asked = {point: protocol_of(config) for point, config in configs.items()}
    first = next(iter(plan.points))
    for point in plan.points:
        a, b = asked[point], asked[first]
        if differ := [k for k in {**b, **a} if a.get(k) != b.get(k)]:
            print(
                f"note: {point} and {first} differ in {', '.join(differ)}: their "
                "figures cannot be compared, if that changes the data or what is asked"
            )


def protocol_of(config: Any) -> dict[str, Any]:
    """The keys that decide a run's protocol, and what its epoch is chosen by."""
    c, e, flat = config.data, config.eval, flat_config(config)
    keys = {key for key in flat if key.startswith("data.")} - TRAINING
    if c.split not in ("ratio", "time", "user"):
        keys.remove("data.split_fractions")
    if not (c.split == "user" or c.cold_items or e.candidates):
        keys.remove("data.split_seed")
    keys |= {"eval.mask_seen", "eval.candidates", "train.metric"}
    keys |= {"eval.like_threshold"} if c.rating else set()
    return {key: flat[key] for key in sorted(keys)}


def _plain(value: Any) -> Any:
    """A config value as JSON."""
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, tuple | list) else value
