"""A sweep's runs as a table, a CSV and a plot, beside published figures.

    python -m experiments.collect runs/pooling --out=experiments/pooling/ml100k

RUNS is what `experiments.sweep` filled. Writes table.md, table.csv and plot.png.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import recjax
from experiments.tabling.finished import Sweep, rank_digest, read_sweep
from experiments.tabling.plots import AXES, check_plots, plot
from experiments.tabling.published import read_published
from experiments.tabling.statistics import FLIPS, by_user, holm, paired_randomisation
from experiments.tabling.table import TABLE_FILES, Row, markdown, write_csv
from recjax.common.errors import UserError
from recjax.common.files import atomic_files
from recjax.evaluation.metrics import with_intervals
from recjax.evaluation.subgroups import ITEM_BINS

METRICS = ["hr@10", "ndcg@10"]
SECONDS = "seconds"
REFERENCE = "point to compare with, or each run's '(baseline)'; the first without"
TESTED = "of the differences; what the epoch was chosen by without"
ASKED = "rows whose targets have no training event (new), 1 to 4 (cold), more (warm)"


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files and prints the table; exit code 2 where there can be none."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", type=Path, help="directory of a sweep")
    parser.add_argument("--out", type=Path, help="RUNS without")
    parser.add_argument("--reference", help=REFERENCE)
    parser.add_argument("--points", nargs="+", help="rows of the table; all without")
    parser.add_argument(
        "--metrics", nargs="+", default=METRICS, help="1st is plotted, and the tested"
    )
    parser.add_argument("--tested", metavar="METRIC", help=TESTED)
    parser.add_argument("--published", type=Path, help="CSV: name, source, metrics")
    parser.add_argument("--partial", action="store_true", help="without missing runs")
    parser.add_argument(
        "--items", choices=("all", *ITEM_BINS), default="all", help=ASKED
    )
    parser.add_argument("--title", help="of the page and the plot")
    parser.add_argument("--x", choices=AXES, default=SECONDS, help="of the right plot")
    args = parser.parse_args(argv)
    try:
        print(collect(args))
        print(
            f"written: {', '.join(TABLE_FILES)} in {args.out or args.runs}",
            file=sys.stderr,
        )
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


def collect(args: argparse.Namespace) -> str:
    """Writes the files; the page.

    Raises:
      UserError: runs or figures that cannot stand in one table, or no place for it.
    """
    check_plots()
    sweep = read_sweep(args.runs, args.reference, args.partial, args.items, args.points)
    tested = args.tested or tested_metric(sweep, args.metrics)
    check_metrics(sweep, "--metrics", args.metrics)
    check_metrics(sweep, "--tested", [tested])
    rows = baseline_rows(sweep, args.metrics)
    rows += point_rows(sweep, args.metrics, tested)
    if args.published:
        rows += read_published(args.published, args.metrics)
    table = markdown(rows, args.metrics, f"difference, {tested}")
    text = "\n\n".join([table, *caption(sweep, rows, tested, args)])
    text = f"# {args.title}\n\n{text}" if args.title else text
    out = args.out or args.runs
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_files(*(out / name for name in TABLE_FILES)) as (
            page,
            numbers,
            image,
        ):
            page.write_text(text + "\n", encoding="utf-8")
            write_csv(numbers, rows, args.metrics)
            shown = dict.fromkeys([args.metrics[0], tested])
            plot(
                image,
                rows,
                [metric for metric in shown if metric in args.metrics],
                reference=sweep.reference,
                x=args.x,
                title=args.title or "",
            )
    except OSError as e:
        raise UserError(f"--out {out}: {e.strerror}") from None
    return text


def check_metrics(sweep: Sweep, flag: str, metrics: Sequence[str]) -> None:
    """Raises UserError at a metric that is none, or that ranks alone do not give."""
    known = [name for name in sweep.first["test"] if "@" in name]
    for name in metrics:
        if name not in known:
            raise UserError(f"{flag}: no {name!r} among {', '.join(known)}")


def tested_metric(sweep: Sweep, metrics: Sequence[str]) -> str:
    """That of the differences: what chose the epoch, if ranks give it."""
    chosen: str = sweep.config["train"]["metric"]
    return chosen if "@" in chosen else metrics[0]


def baseline_rows(sweep: Sweep, metrics: Sequence[str]) -> list[Row]:
    """What was not trained."""
    by_metric = {m: sweep.untrained(m) for m in metrics}
    rows = []
    for name in by_metric[metrics[0]]:
        values = {m: by_metric[m][name] for m in metrics}
        means = {m: [float(x.mean())] for m, x in values.items()}
        rows.append(Row(name, "baseline", means, intervals(sweep, values)))
    return rows


def intervals(
    sweep: Sweep, values: dict[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Of the means over the test rows, as in results.json."""
    samples = sweep.config["eval"]["bootstrap_samples"]
    found = with_intervals(values, sweep.users_R, bootstrap_samples=samples)
    return {m: (x["low"], x["high"]) for m, x in found.items()}


def point_rows(sweep: Sweep, metrics: Sequence[str], tested: str) -> list[Row]:
    """A row of each point, those other than the reference with difference and p."""
    rows, tests = [], {}
    for point in sweep.points():
        row = point_row(sweep, point, metrics)
        if point != sweep.reference:
            difference_R, by_seed = sweep.difference(point, tested)
            difference = float(difference_R.mean())
            row = replace(row, difference=difference, by_seed=by_seed)
            sums_V = by_user(difference_R, sweep.users_R)
            tests[point] = paired_randomisation(sums_V)
        rows.append(row)
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return [replace(row, p=corrected.get(row.name)) for row in rows]


def point_row(sweep: Sweep, point: str, metrics: Sequence[str]) -> Row:
    """A row of a point, not yet compared."""
    runs = [sweep.results[point, seed] for seed in sweep.seeds(point)]
    values = {m: sweep.by_seed(point, m).mean(axis=1).tolist() for m in metrics}
    bounds = intervals(sweep, {m: sweep.values(point, m) for m in metrics})
    chosen = sweep.config["train"]["metric"]
    cost = {
        "seeds": float(len(runs)),
        f"valid {chosen}": mean(r["valid"][chosen]["value"] for r in runs),
        "epochs": mean(sum(x["epochs"] for x in r["phases"].values()) for r in runs),
        AXES["seconds"].column: mean(r["seconds"]["train"] for r in runs),
        "all s": mean(r["seconds"]["total"] for r in runs),
        AXES["params"].column: mean(r["params"]["trainable"] for r in runs),
        "MiB": mean(r["peak_memory_mib"] for r in runs),
    }
    ranks = {s: rank_digest(sweep.ranks[point, s].rank_R) for s in sweep.seeds(point)}
    return Row(point, "point", values, bounds, cost, ranks=ranks)


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean, of numbers that may be of any type."""
    return float(np.mean(list(values)))


def caption(
    sweep: Sweep, rows: Sequence[Row], tested: str, args: argparse.Namespace
) -> list[str]:
    """What has to be known to read the table, in paragraphs."""
    plan, p, point_and_seed = sweep.plan, sweep.first["protocol"], sweep.base
    num_users, several = len(np.unique(sweep.users_R)), sweep.rows_per_user > 1
    who = f"{num_users:,} user{'s' * (num_users > 1)}"
    who = f"{len(sweep.users_R):,} rows of {who}" if several else who
    if args.items != "all":
        who += f" whose targets are {args.items} (recjax/buckets.py)"
    text = (
        f"Test: {seed_words(sweep)}, with 95% percentile bootstrap intervals over "
        f"users of the seeds' mean; {who}. {chosen_words(sweep)}"
    )
    text += comparison_words(sweep, rows, tested)
    if any(row.kind == "baseline" for row in rows):
        text += (
            " Rows in parentheses are not trained, of the run {}/{} alone, and not "
            "tested.".format(*point_and_seed)
        )
    if any(row.kind == "published" for row in rows):
        text += " Published rows are as their sources give them, and not tested."
    if args.items != "all":
        text += " The validation figures are over all its rows."
    protocol = (
        f"Protocol {sweep.first['fingerprint']}: {p['split']}, {p['candidates']} "
        f"ranked, seen items {'' if p['mask_seen'] else 'not '}masked, ties "
        f"{p['ties']}, history of {p['history']}."
    )
    missing = (
        f"{len(sweep.missing)} of {len(sweep.missing) + len(sweep.results)} runs are "
        f"not finished and not in the table: {', '.join(sweep.missing)}."
    )
    commands = "\n".join(
        f"    {shlex.join(x)}" for x in (sweep_command(plan), collect_command(args))
    )
    notes = [missing] if sweep.missing else []
    if commit := current_commit():
        protocol += f" Made at commit {commit}."
    protocol += f" Cores of a run: {made_by(sweep, 'cores')}."
    if any(results["pretrained"] for results in sweep.results.values()):
        protocol += (
            f" Digest of the pretrained weights: {made_by(sweep, 'pretrained')}."
        )
    return [text, protocol, *notes, commands]


def current_commit() -> str:
    """Returns the commit of this checkout, and whether it has uncommitted changes.

    Only changes of what a result depends on count: the package and the configs. Outside
    a git checkout the answer is empty.
    """
    root = Path(recjax.__file__).parent.parent
    git = ["git", "--no-optional-locks", "-C", str(root)]
    commands = (
        [*git, "rev-parse", "--short=7", "HEAD"],
        [*git, "status", "--porcelain", "--", "recjax", "configs"],
    )
    if not (root / ".git").exists():  # installed, or unpacked in another checkout
        return ""
    try:
        commit, changes = (
            subprocess.check_output(x, text=True, stderr=subprocess.DEVNULL).strip()
            for x in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}, with uncommitted changes" if changes else commit


def made_by(sweep: Sweep, what: str) -> str:
    """What runs were made with; where they differ, which points."""
    points: dict[str, dict[str, None]] = {}
    for (point, _), results in sweep.results.items():
        found = results[what]
        points.setdefault("none" if found is None else str(found), {})[point] = None
    if len(points) == 1:
        return next(iter(points))
    return "; ".join(f"{x} ({', '.join(some)})" for x, some in sorted(points.items()))


def seed_words(sweep: Sweep) -> str:
    """Of which seeds the means are, and which points have others."""
    seeds = {point: sweep.seeds(point) for point in sweep.points()}
    shown = {point: ", ".join(map(str, some)) for point, some in seeds.items()}
    first, _ = sweep.base
    means = f"means of seeds {shown[first]} ± their standard deviation"
    if len(seeds[first]) == 1:
        means = f"one seed ({shown[first]})"
    if others := [x for x, some in seeds.items() if some != seeds[first]]:
        means += f" ({', '.join(f'{x}: of {shown[x]}' for x in others)})"
    return means


def chosen_words(sweep: Sweep) -> str:
    """Which state of a run is shown."""
    keep = {point: sweep.keeps(point) for point in sweep.points()}
    last = [point for point, kept in keep.items() if kept == "last"]
    if len(last) == len(keep):
        return "The state is that after the last epoch."
    chosen = f"The epoch is chosen on validation {sweep.config['train']['metric']}"
    return (
        f"{chosen}, but in {', '.join(last)} it is the last." if last else f"{chosen}."
    )


def comparison_words(sweep: Sweep, rows: Sequence[Row], tested: str) -> str:
    """How points were compared, if any were."""
    if not (num_tests := sum(row.p is not None for row in rows)):
        return ""
    of_rows = " and summed over each user's rows" if sweep.rows_per_user > 1 else ""
    signs = ""
    if any(len(row.by_seed) > 1 for row in rows):
        signs = " (in parentheses: in how many of the seeds it has this sign)"
    return (
        f" Difference from `{sweep.reference}`{signs}, with p of a two-sided paired "
        f"randomisation test over users ({FLIPS:,} sign flips of the users' "
        f"differences in {tested}, averaged over seeds{of_rows}), corrected by Holm "
        f"for {num_tests} test{'s' if num_tests > 1 else ''}; the least that so many "
        f"flips can give is {num_tests / (FLIPS + 1):.4f}. It asks what other users "
        "would make of these trained states, not what other seeds would give."
    )


def sweep_command(plan: dict[str, Any]) -> list[str]:
    """The command that fills the directory; where the data lay is left open."""
    command = ["python", "-m", "experiments.sweep", f"--config={plan['config']}"]
    command += [f"--data={plan['data']}"] if plan["data"] else []
    command += ["--out=RUNS", "--seeds", *map(str, plan["seeds"])]
    command += ["--points", *plan["points"]]
    source, given = "--config.data.source=", plan["arguments"]
    shown = [f"{source}DIR" if x.startswith(source) else x for x in given]
    return [*command, "--", *shown] if shown else command


def collect_command(args: argparse.Namespace) -> list[str]:
    """The command that makes the table of it."""
    command = ["python", "-m", "experiments.collect", "RUNS"]
    for name in ("reference", "tested", "published", "title"):
        if value := getattr(args, name):
            command.append(f"--{name}={value}")
    command += ["--points", *args.points] if args.points else []
    command += [f"--x={args.x}"] if args.x != SECONDS else []
    command += ["--partial"] if args.partial else []
    command += [f"--items={args.items}"] if args.items != "all" else []
    return (
        [*command, "--metrics", *args.metrics] if args.metrics != METRICS else command
    )


if __name__ == "__main__":
    main()
