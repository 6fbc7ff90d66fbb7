"""Plans the runs of a sweep, and finds those that cannot run or be compared."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.sweeping.command import check_same_arguments
from experiments.sweeping.load import (
    PLAN,
    STUDY,
    Changes,
    check_arguments,
    is_finished,
    load_sweep,
    read_plan,
    resolve,
)
from experiments.sweeping.pool import NO_MODEL, Job
from recjax.common.config import flat_config
from recjax.common.errors import UserError
from recjax.common.files import atomic_files
from recjax.config.load import load_module
from recjax.config.validate import check_config
from recjax.data.splits import load_data
from recjax.run.workdir import check_same_config
from recjax.runtime.provenance import usable_cores

OTHER_RUN = "delete that run, or choose another --out"
# Keys of `data` that affect training only, not the protocol.
TRAINING_KEYS = {
    f"data.{x}" for x in ("shuffle_ties", "reverse", "windows", "strict", "user_table")
}


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep.

    Attributes:
      config: path of the config file.
      data: name of a data set that the config knows, a file that defines one, or "".
      variants: config changes by name, the reference first.
      seeds: each variant is run with each of them.
      arguments: flags that all runs have in common.
      out: directory of the sweep.
      protocols: the config keys that decide the protocol, as text by variant.
      refused: reasons by name, for variants that cannot run.
    """

    config: str
    data: str
    variants: dict[str, Changes]
    seeds: list[int]
    arguments: list[str]
    out: Path
    protocols: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def runs(self) -> list[tuple[str, int]]:
        """Returns all variants with the first seed, then with the next."""
        return [(variant, seed) for seed in self.seeds for variant in self.variants]

    def folder(self, variant: str, seed: int) -> Path:
        """Returns the run directory."""
        return self.out / variant / str(seed)

    def flags(self, variant: str, seed: int) -> list[str]:
        """Returns the flags that give the config of a run."""
        data = f"@{self.data}" if self.data else ""
        config = f"--config={self.config}:{variant}{data}"
        return [config, f"--config.seed={seed}", NO_MODEL, *self.arguments]

    def job(self, variant: str, seed: int) -> Job:
        """Returns the command of a run."""
        command = [sys.executable, "-m", "recjax.main", *self.flags(variant, seed)]
        command.append(f"--workdir={self.folder(variant, seed)}")
        return Job(
            f"{variant} {seed}", command, self.out / "logs" / f"{variant}-{seed}.txt"
        )


def make_plan(args: argparse.Namespace, arguments: list[str]) -> Plan:
    """Checks the arguments, and adds the variants and seeds in `sweep.json`, if any.

    Raises:
      UserError: no variant can run, or the directory holds runs of other arguments.
    """
    known = load_sweep(args.config)
    if args.data.endswith(".py"):
        load_module(args.data, "--data", "describe")  # a mistake in it is named early
    if unknown := [variant for variant in args.variants or () if variant not in known]:
        raise UserError(
            f"--variants: no {unknown[0]!r} in {args.config}; choose from "
            f"{', '.join(known)}"
        )
    check_runs(args.seeds, args.jobs)
    check_arguments(arguments)
    if (args.out / STUDY).exists():
        raise UserError(f"--out {args.out}: holds a search; choose another")
    chosen = set(args.variants or known)
    seeds = set(args.seeds)
    same = {"config": args.config, "data": args.data, "arguments": arguments}
    if (args.out / PLAN).exists():
        before = read_plan(args.out)
        check_same_arguments(before, same, args.out)
        if gone := [name for name in before["variants"] if name not in known]:
            print(f"note: {args.config} no longer has {', '.join(gone)}; skipped")
        chosen |= set(before["variants"])
        seeds |= set(before["seeds"])
    variants = {name: changes for name, changes in known.items() if name in chosen}
    plan = Plan(args.config, args.data, variants, sorted(seeds), arguments, args.out)
    configs = {run: resolve(plan.flags(*run)) for run in plan.runs()}
    for (variant, _), config in configs.items():
        plan.protocols[variant] = str(protocol_of(config))
    for run, config in configs.items():
        check_same_config(config, plan.folder(*run), OTHER_RUN)
        try:
            check_config(config)
        except UserError as e:
            plan.refused[run[0]] = str(e)
    missing = [run for run in configs if not is_finished(plan.folder(*run))]
    check_data(plan, {run: configs[run] for run in missing})
    if len(plan.refused) == len(variants):
        raise UserError(join_reasons(plan.refused))
    print_plan(plan, {variant: config for (variant, _), config in configs.items()})
    return plan


def check_data(plan: Plan, configs: Mapping[tuple[str, int], Any]) -> None:
    """Refuses the variants whose data or texts cannot be read.

    Args:
      plan: the sweep; its `refused` is updated.
      configs: configs of the runs that are not finished.
    """
    errors: dict[str, str] = {}  # runs that read the same data are checked once
    for (variant, _), config in configs.items():
        if variant in plan.refused:
            continue
        text = "text" in config.item_tower.sources
        template = config.text.template if text else ""
        key = config.data.to_json() + template
        if key not in errors:
            errors[key] = ""
            try:
                load_data(config).render(template, "text.template")
            except UserError as e:
                errors[key] = str(e)
        if errors[key]:
            plan.refused[variant] = errors[key]


def join_reasons(refused: Mapping[str, str]) -> str:
    """Returns why no variant can run; a reason that all share is given once."""
    reasons = {*refused.values()}
    if len(reasons) == 1:
        return f"{', '.join(refused)}: {reasons.pop()}"
    return "; ".join(f"{name}: {reason}" for name, reason in refused.items())


def save_plan(plan: Plan) -> None:
    """Writes `sweep.json`."""
    content = {
        "config": plan.config,
        "data": plan.data,
        "arguments": plan.arguments,
        "variants": plan.variants,
        "seeds": plan.seeds,
    }
    # The values of a variant may be ConfigDicts, such as phases.
    text = json.dumps(content, indent=2, default=lambda value: value.to_dict())
    with atomic_files(plan.out / PLAN) as (path,):
        path.write_text(text + "\n", encoding="utf-8")


def check_runs(seeds: Sequence[int], jobs: int) -> None:
    """Raises UserError at invalid seeds, or at an invalid number of parallel runs."""
    cores = len(usable_cores())
    if not 1 <= jobs <= cores:
        raise UserError(
            f"--jobs: {jobs} is not between 1 and {cores}, the number of cores"
        )
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"--seeds: {list(seeds)} have to be different and at least 0")


def print_plan(plan: Plan, configs: Mapping[str, Any]) -> None:
    """Prints which variants cannot run, are identical, or do not compare to the first.

    Args:
      plan: the checked sweep.
      configs: configs by variant.
    """
    for variant, reason in plan.refused.items():
        print(f"note: {variant} cannot run: {reason}")
    same: dict[str, str] = {}
    for variant, config in configs.items():
        other = same.setdefault(config.to_json(), variant)
        if other != variant:
            print(
                f"note: {variant} and {other} have the same config, so their runs "
                "are the same"
            )
    protocols = {name: protocol_of(config) for name, config in configs.items()}
    first = next(iter(plan.variants))
    for variant in plan.variants:
        if differ := changed_keys(protocols[variant], protocols[first]):
            print(
                f"note: {variant} and {first} differ in {', '.join(differ)}: their "
                "results cannot be compared if this changes the data or the test"
            )


def changed_keys(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Returns the keys whose values differ, or that only one of the two has."""
    return [key for key in {**old, **new} if new.get(key) != old.get(key)]


def protocol_of(config: Any) -> dict[str, Any]:
    """Returns the config values that decide the protocol and choose the epoch."""
    data, flat = config.data, flat_config(config)
    keys = {key for key in flat if key.startswith("data.")} - TRAINING_KEYS
    if data.split not in ("ratio", "time", "user"):
        keys.remove("data.split_fractions")
    if not (data.split == "user" or data.cold_items or config.eval.candidates):
        keys.remove("data.split_seed")
    keys |= {"eval.mask_seen", "eval.candidates", "train.metric"}
    keys |= {"eval.like_threshold"} if data.rating else set()
    return {key: flat[key] for key in sorted(keys)}
