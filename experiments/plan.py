"""What a sweep is to run, and whose directories these are."""

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from configs.ablations.reference import Changes, read_points
from experiments.pool import Job, usable_cores
from recjax.errors import UserError, explain
from recjax.workdir import lock, refuse_other_run


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


@contextlib.contextmanager
def claim(out: Path) -> Iterator[None]:
    """Keeps other sweeps out of the directory."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    except OSError as e:
        raise UserError(f"--out {out}: {e.strerror}") from None
    with file:
        if not lock(file):
            raise UserError(f"--out {out}: another sweep is in it")
        yield


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
    path = args.out / "sweep.json"
    asked, seeds = set(args.points or known), set(args.seeds)
    same = {"config": args.config, "data": args.data, "arguments": arguments}
    if path.exists():
        before = read_json(path)
        if missing := {*same, "points", "seeds"} - set(before):
            raise UserError(f"{path}: damaged, no {sorted(missing)[0]!r}")
        for key, value in same.items():
            if (was := before[key]) != value:
                raise UserError(
                    f"--out {args.out}: was begun with {key} {was!r}, not {value!r}"
                )
        asked, seeds = asked | set(before["points"]), seeds | set(before["seeds"])
    points = {name: changes for name, changes in known.items() if name in asked}
    plan = Plan(args.config, args.data, points, sorted(seeds), arguments, args.out)
    for point, seed in plan.runs():
        refuse_other_run(resolve(plan.flags(point, seed)), plan.folder(point, seed))
    plain = {name: {k: _plain(x) for k, x in c.items()} for name, c in points.items()}
    found = {
        **same,
        "points": plain,
        "seeds": plan.seeds,
    }
    part = args.out / ".sweep.json.part"
    part.write_text(json.dumps(found, indent=2) + "\n")
    os.replace(part, path)
    return plan


def read_json(path: Path) -> Any:
    """A file of JSON.

    Raises:
      UserError: it is not there, or none.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: {e}") from None


def check_arguments(arguments: list[str]) -> None:
    """Raises UserError at what is no change of a config, or would be all runs' seed."""
    for each in arguments:
        if not each.startswith("--config.") or each.startswith("--config.seed"):
            raise UserError(f"{each!r} after --: only --config.KEY=..., without seed")


def load_sweep(path: str) -> dict[str, Changes]:
    """The points of a config file.

    Raises:
      UserError: it cannot be read, or has no sweep.
    """
    sweep = load_from(path, "sweep")
    try:
        return read_points(sweep)
    except Exception as e:  # a config file may raise anything
        raise UserError(f"--config: {path}: {' '.join(explain(e))}") from None


def load_from(path: str, name: str) -> Any:
    """What a config file calls so.

    Raises:
      UserError: it cannot be read, or has no such thing.
    """
    spec = importlib.util.spec_from_file_location("sweep_config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, name)
    except FileNotFoundError:
        raise UserError(f"--config: {path} is not there") from None
    except Exception as e:  # a config file may raise anything
        raise UserError(f"--config: {path}: {' '.join(explain(e))}") from None


def resolve(arguments: list[str]) -> Any:
    """The config that a run's flags make.

    Raises:
      UserError: they make none.
    """
    values, argv = flags.FlagValues(), ["sweep", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        with warnings.catch_warnings():  # of how config_flags imports a file
            warnings.simplefilter("ignore", DeprecationWarning)
            values(argv)
            return values.config
    except Exception as e:  # a config file may raise anything
        raise UserError(f"config of {arguments[0]}: {' '.join(explain(e))}") from None


def _plain(value: Any) -> Any:
    """A config value as JSON."""
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, tuple | list) else value
