"""Collects the runs of a sweep in a table, a CSV file and a plot.

    python -m experiments.collect runs/pooling --out=experiments/pooling/ml100k

RUNS is a directory filled by `experiments.sweep`. Writes table.md, table.csv and
plot.png. `--published` adds published results for comparison. With `--redraw` RUNS is
a directory of such files, and only plot.png is drawn again.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.sweeping.command import add_variants, path_argument
from experiments.tabling.caption import METRICS, SECONDS, caption
from experiments.tabling.finished import Sweep, rank_digest, read_sweep
from experiments.tabling.plots import AXES, check_plots, plot
from experiments.tabling.published import read_published
from experiments.tabling.statistics import by_user, holm, paired_randomisation
from experiments.tabling.table import (
    TABLE_FILES,
    Row,
    markdown,
    read_csv,
    write_csv,
)
from recjax.common.errors import UserError
from recjax.common.files import atomic_files
from recjax.evaluation.metrics import with_intervals
from recjax.evaluation.subgroups import ITEM_BINS

REFERENCE = "variant to compare with, or '(NAME)' of a baseline (default: the first)"
TESTED = "metric of the differences (default: the one that chose the epoch)"
METRICS_HELP = "columns; the first one and the tested one are plotted"
ITEMS = "test only targets with 0 (new), 1 to 4 (cold) or more training events (warm)"
PARTIAL = "allow missing runs"
REDRAW = "draw plot.png again from table.csv, with the options in table.md"


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files and prints the table; exit code 2 if there cannot be one."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", type=path_argument, help="directory of a sweep")
    parser.add_argument(
        "--out", type=path_argument, help="directory to write (default: RUNS)"
    )
    parser.add_argument("--reference", help=REFERENCE)
    add_variants(parser, "rows of the table (default: all of the sweep)")
    parser.add_argument("--metrics", nargs="+", default=METRICS, help=METRICS_HELP)
    parser.add_argument("--tested", metavar="METRIC", help=TESTED)
    parser.add_argument(
        "--published", type=path_argument, help="CSV: name, source, metrics, data"
    )
    parser.add_argument("--partial", action="store_true", help=PARTIAL)
    items = ("all", *ITEM_BINS)
    parser.add_argument("--items", choices=items, default="all", help=ITEMS)
    parser.add_argument("--title", help="title of the page and the plot")
    parser.add_argument(
        "--x", choices=AXES, default=SECONDS, help="x axis of the costs"
    )
    parser.add_argument("--redraw", action="store_true", help=REDRAW)
    args = parser.parse_args(argv)
    try:
        if args.redraw:
            redraw(parser, args.runs, args.out or args.runs)
            return
        print(collect(args))
        files = ", ".join(TABLE_FILES)
        print(f"written: {files} in {args.out or args.runs}", file=sys.stderr)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


def collect(args: argparse.Namespace) -> str:
    """Writes the files, and returns the page.

    Raises:
      UserError: the runs do not fit in one table, or the files cannot be written.
    """
    check_plots()
    sweep = read_sweep(
        args.runs, args.reference, args.partial, args.items, args.variants
    )
    tested = args.tested or tested_metric(sweep, args.metrics)
    check_metrics(sweep, "--metrics", args.metrics)
    check_metrics(sweep, "--tested", [tested])
    rows = baseline_rows(sweep, args.metrics)
    rows += variant_rows(sweep, args.metrics, tested)
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
            draw(image, rows, args, tested, sweep.reference)
    except OSError as e:
        raise UserError(f"--out {out}: {e.strerror}") from None
    return text


def draw(
    path: Path,
    rows: Sequence[Row],
    args: argparse.Namespace,
    tested: str,
    reference: str,
) -> None:
    """Plots the first metric and the tested one, if it is a column."""
    shown = dict.fromkeys([args.metrics[0], tested])
    metrics = [metric for metric in shown if metric in args.metrics]
    title = args.title or ""
    plot(path, rows, metrics, reference=reference, x=args.x, title=title)


def redraw(parser: argparse.ArgumentParser, folder: Path, out: Path) -> None:
    """Draws plot.png of a finished table again, with the options in its table.md.

    Raises:
      UserError: the files cannot be read, or the plot cannot be written.
    """
    check_plots()
    page = folder / "table.md"
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"{page}: {e.strerror}") from None
    tested = re.search(r"\| difference, (\S+) \|", text)
    command = re.search(
        r"^ {4}python -m experiments\.collect (.*)$", text, re.MULTILINE
    )
    if not (tested and command):
        raise UserError(f"{page}: was not written by experiments.collect")
    args = parser.parse_args(shlex.split(command[1]))
    rows = read_csv(folder / "table.csv", args.metrics)
    reference = args.reference or next(x.name for x in rows if x.kind == "variant")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_files(out / "plot.png") as (image,):
            draw(image, rows, args, tested[1], reference)
    except OSError as e:
        raise UserError(f"--out {out}: {e.strerror}") from None


def check_metrics(sweep: Sweep, flag: str, metrics: Sequence[str]) -> None:
    """Raises UserError at an unknown metric, or one that ranks alone do not give."""
    known = [name for name in sweep.first["test"] if "@" in name]
    for name in metrics:
        if name not in known:
            raise UserError(
                f"{flag}: no metric {name!r}; choose from {', '.join(known)}"
            )


def tested_metric(sweep: Sweep, metrics: Sequence[str]) -> str:
    """Returns the metric of the tests: the one that chose the epoch, or the first."""
    chosen: str = sweep.config["train"]["metric"]
    return chosen if "@" in chosen else metrics[0]


def baseline_rows(sweep: Sweep, metrics: Sequence[str]) -> list[Row]:
    """Returns the rows of the baselines and of the zero-shot encoder."""
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
    """Returns confidence intervals of the means over the test, as in results.json."""
    samples = sweep.config["eval"]["bootstrap_samples"]
    found = with_intervals(values, sweep.users_R, bootstrap_samples=samples)
    return {m: (x["low"], x["high"]) for m, x in found.items()}


def variant_rows(sweep: Sweep, metrics: Sequence[str], tested: str) -> list[Row]:
    """Returns a row for each variant, with the difference from the reference and p."""
    rows, tests = [], {}
    for variant in sweep.variants():
        row = variant_row(sweep, variant, metrics)
        if variant != sweep.reference:
            difference_R, by_seed = sweep.difference(variant, tested)
            difference = float(difference_R.mean())
            row = replace(row, difference=difference, by_seed=by_seed)
            sums_V = by_user(difference_R, sweep.users_R)
            tests[variant] = paired_randomisation(sums_V)
        rows.append(row)
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return [replace(row, p=corrected.get(row.name)) for row in rows]


def variant_row(sweep: Sweep, variant: str, metrics: Sequence[str]) -> Row:
    """Returns the row of a variant, without the comparison."""
    runs = [sweep.results[variant, seed] for seed in sweep.seeds(variant)]
    values = {m: sweep.by_seed(variant, m).mean(axis=1).tolist() for m in metrics}
    bounds = intervals(sweep, {m: sweep.values(variant, m) for m in metrics})
    chosen = sweep.config["train"]["metric"]
    cost = {
        "seeds": float(len(runs)),
        f"valid {chosen}": mean(run["valid"][chosen]["value"] for run in runs),
        "epochs": mean(
            sum(phase["epochs"] for phase in run["phases"].values()) for run in runs
        ),
        AXES["seconds"].column: mean(run["seconds"]["train"] for run in runs),
        "all s": mean(run["seconds"]["total"] for run in runs),
        AXES["params"].column: mean(run["params"]["trainable"] for run in runs),
        "MiB": mean(run["peak_memory_mib"] for run in runs),
    }
    ranks = {
        seed: rank_digest(sweep.ranks[variant, seed].rank_R)
        for seed in sweep.seeds(variant)
    }
    return Row(variant, "variant", values, bounds, cost, ranks=ranks)


def mean(values: Iterable[float]) -> float:
    """Returns the arithmetic mean."""
    return float(np.mean(list(values)))


if __name__ == "__main__":
    main()
