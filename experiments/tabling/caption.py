"""Describes a table: the test, the protocol, and the commands that made it."""

import argparse
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import recjax
from experiments.tabling.finished import Sweep
from experiments.tabling.statistics import FLIPS
from experiments.tabling.table import Row

METRICS = ["hr@10", "ndcg@10"]  # the default columns
SECONDS = "seconds"  # the default x axis
ITEM_GROUPS = {
    "new": "no training event",
    "cold": "1 to 4 training events",
    "warm": "5 or more training events",
}


def caption(
    sweep: Sweep, rows: Sequence[Row], tested: str, args: argparse.Namespace
) -> list[str]:
    """Returns the paragraphs below the table."""
    num_missing = len(sweep.missing)
    missing = (
        f"{num_missing} of {num_missing + len(sweep.results)} runs are not finished "
        f"and not in the table: {', '.join(sweep.missing)}."
    )
    commands = (sweep_command(sweep.plan), collect_command(args))
    return [
        describe_test(sweep, rows, tested, args.items),
        describe_protocol(sweep),
        *describe_unimproved(sweep),
        *([missing] if sweep.missing else []),
        "\n".join(f"    {shlex.join(command)}" for command in commands),
    ]


def describe_test(sweep: Sweep, rows: Sequence[Row], tested: str, items: str) -> str:
    """Describes the numbers of the table and how they were compared."""
    num_users = len(np.unique(sweep.users_R))
    users = f"{num_users:,} user{'s' * (num_users > 1)}"
    if sweep.examples_per_user > 1:
        users = f"{len(sweep.users_R):,} examples of {users}"
    if items != "all":
        users += f" with {items} targets ({ITEM_GROUPS[items]})"
    text = (
        f"Test: {describe_seeds(sweep)}, with 95% percentile bootstrap intervals of "
        f"this mean over users; {users}. {describe_checkpoint(sweep)}"
    )
    text += describe_comparison(sweep, rows, tested)
    if any(row.kind == "baseline" for row in rows):
        text += (
            " Rows in parentheses are not trained; they come from the run {}/{} and "
            "are not tested.".format(*sweep.base)
        )
    if any(row.kind == "published" for row in rows):
        text += " Published rows are copied from their sources and not tested."
    if items != "all":
        text += " The validation metric covers all items."
    return text


def describe_protocol(sweep: Sweep) -> str:
    """Describes the protocol, the code, the cores and the weights of the runs."""
    protocol = sweep.first["protocol"]
    text = (
        f"Protocol {sweep.first['fingerprint']}: {protocol['split']}, "
        f"{protocol['candidates']} ranked, seen items "
        f"{'' if protocol['mask_seen'] else 'not '}masked, ties {protocol['ties']}, "
        f"history length {protocol['history']}."
    )
    if commit := current_commit():
        text += f" Made at commit {commit}."
    text += f" Cores per run: {values_by_variant(sweep, 'cores')}."
    if any(results["pretrained"] for results in sweep.results.values()):
        digests = values_by_variant(sweep, "pretrained")
        text += f" Digest of the pretrained weights: {digests}."
    return text


def current_commit() -> str:
    """Returns the commit of this checkout, and whether it has uncommitted changes.

    Only changes of the package and the configs count, because results depend on them.
    Outside a git checkout the commit is empty.
    """
    root = Path(recjax.__file__).parent.parent
    git = ["git", "--no-optional-locks", "-C", str(root)]
    commands = (
        [*git, "rev-parse", "--short=7", "HEAD"],
        [*git, "status", "--porcelain", "--", "recjax", "configs"],
    )
    if not (root / ".git").exists():  # installed, or unpacked inside another checkout
        return ""
    try:
        commit, changes = (
            subprocess.check_output(x, text=True, stderr=subprocess.DEVNULL).strip()
            for x in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}, with uncommitted changes" if changes else commit


def values_by_variant(sweep: Sweep, key: str) -> str:
    """Returns a value of results.json, with the variants if they differ in it."""
    variants: dict[str, dict[str, None]] = {}  # by value; a dict keeps their order
    for (variant, _), results in sweep.results.items():
        value = "none" if results[key] is None else str(results[key])
        variants.setdefault(value, {})[variant] = None
    if len(variants) == 1:
        return next(iter(variants))
    parts = [
        f"{value} ({', '.join(names)})" for value, names in sorted(variants.items())
    ]
    return "; ".join(parts)


def describe_seeds(sweep: Sweep) -> str:
    """Returns the seeds of the means, and the variants that have other seeds."""
    seeds = {variant: sweep.seeds(variant) for variant in sweep.variants()}
    shown = {variant: ", ".join(map(str, own)) for variant, own in seeds.items()}
    first, _ = sweep.base
    means = f"mean over seeds {shown[first]} ± standard deviation"
    if len(seeds[first]) == 1:
        means = f"one seed ({shown[first]})"
    if others := [name for name, own in seeds.items() if own != seeds[first]]:
        means += f" ({', '.join(f'{name}: {shown[name]}' for name in others)})"
    return means


def describe_checkpoint(sweep: Sweep) -> str:
    """Returns how the epoch of the tested parameters was chosen."""
    keep = {variant: sweep.keeps(variant) for variant in sweep.variants()}
    last = [variant for variant, kept in keep.items() if kept == "last"]
    if len(last) == len(keep):
        return "The parameters after the last epoch are tested."
    chosen = f"The epoch is chosen on validation {sweep.config['train']['metric']}"
    return f"{chosen}; {', '.join(last)} use the last epoch." if last else f"{chosen}."


def describe_unimproved(sweep: Sweep) -> list[str]:
    """Names the phases that kept nothing, in one paragraph; empty if there are none."""
    parts = []
    for variant in sweep.variants():
        seeds = len(sweep.seeds(variant))
        for phase, number in sweep.unimproved(variant).items():
            of_seeds = f"{number} of {seeds} seed{'s' * (seeds > 1)}"
            parts.append(f"{variant}: phase {phase} kept nothing in {of_seeds}")
    if not parts:
        return []
    why = "no epoch was better on validation than the start of the phase"
    return [f"{'; '.join(parts)} ({why})."]


def describe_comparison(sweep: Sweep, rows: Sequence[Row], tested: str) -> str:
    """Describes the statistical test, if variants were compared."""
    if not (num_tests := sum(row.p is not None for row in rows)):
        return ""
    summed = (
        " and summed over each user's examples" if sweep.examples_per_user > 1 else ""
    )
    signs = ""
    if any(len(row.by_seed) > 1 for row in rows):
        signs = " (in parentheses: the number of seeds with the same sign)"
    return (
        f" Differences are from `{sweep.reference}`{signs}; p is from a two-sided "
        f"paired randomisation test over users ({FLIPS:,} sign flips of the users' "
        f"differences in {tested}, averaged over seeds{summed}), with Holm's "
        f"correction for {num_tests} test{'s' if num_tests > 1 else ''}; the smallest "
        f"possible p is {num_tests / (FLIPS + 1):.4f}. It generalises to other users "
        "of these trained models, not to other seeds."
    )


def sweep_command(plan: dict[str, Any]) -> list[str]:
    """Returns the command of the sweep, without the directory of the data."""
    command = ["python", "-m", "experiments.sweep", f"--config={plan['config']}"]
    command += [f"--data={plan['data']}"] if plan["data"] else []
    command += ["--out=RUNS", "--seeds", *map(str, plan["seeds"])]
    command += ["--variants", *plan["variants"]]
    source = "--config.data.source="
    shown = [f"{source}DIR" if x.startswith(source) else x for x in plan["arguments"]]
    return [*command, "--", *shown] if shown else command


def collect_command(args: argparse.Namespace) -> list[str]:
    """Returns the command that makes the table."""
    command = ["python", "-m", "experiments.collect", "RUNS"]
    for name in ("reference", "tested", "published", "title"):
        if value := getattr(args, name):
            command.append(f"--{name}={value}")
    command += ["--variants", *args.variants] if args.variants else []
    command += [f"--x={args.x}"] if args.x != SECONDS else []
    command += ["--partial"] if args.partial else []
    command += [f"--items={args.items}"] if args.items != "all" else []
    return (
        [*command, "--metrics", *args.metrics] if args.metrics != METRICS else command
    )
