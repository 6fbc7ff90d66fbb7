"""A sweep's runs as a table, a CSV and a plot, beside published figures.

    python -m experiments.collect runs/pooling --out=experiments/pooling

RUNS is what `experiments.sweep` filled. Writes table.md, table.csv and plot.png.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments.plots import plot
from experiments.statistics import bootstrap, by_user, holm, paired_randomisation
from recjax.compare import read_runs
from recjax.errors import UserError


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
      values: by metric, a mean over the users for each seed.
      intervals: by metric, 95% over users of the means of the seeds.
      cost: other columns, where there are any.
      note: source of a published row.
    """

    name: str
    values: dict[str, list[float]]
    intervals: dict[str, tuple[float, float]]
    cost: dict[str, float]
    difference: float | None = None
    p: float | None = None
    note: str = ""


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files and prints the table; exit code 2 where there can be none."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", type=Path, help="directory of a sweep")
    parser.add_argument("--out", type=Path, help="RUNS without")
    parser.add_argument("--reference", help="point to compare with; the first without")
    parser.add_argument("--metrics", nargs="+", default=["hr@10", "ndcg@10"])
    parser.add_argument("--published", type=Path, help="CSV: name, source, metrics")
    parser.add_argument("--partial", action="store_true", help="without missing runs")
    args = parser.parse_args(argv)
    try:
        text, rows = collect(args)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    out = args.out or args.runs
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text + "\n")
    write_csv(out / "table.csv", rows, args.metrics)
    plot(out / "plot.png", rows, args.metrics)
    print(text)


def collect(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """The table with its caption, and its rows.

    Raises:
      UserError: runs that are missing or of different protocols, names that are none.
    """
    plan = read_json(args.runs / "sweep.json")
    points = list(plan["points"])
    reference = args.reference or points[0]
    if reference not in points:
        raise UserError(f"--reference: no {reference!r} among {', '.join(points)}")
    folders = {
        (point, seed): args.runs / point / str(seed)
        for point in points
        for seed in plan["seeds"]
    }
    missing = [x for x in folders.values() if not (x / "results.json").exists()]
    if missing and (not args.partial or len(missing) == len(folders)):
        raise UserError(f"{len(missing)} runs are not finished, the first {missing[0]}")
    there = {each: x for each, x in folders.items() if x not in missing}
    results = dict(zip(there, read_runs(list(there.values())).values(), strict=True))
    if (reference, plan["seeds"][0]) not in results:
        raise UserError(f"the first run of {reference!r} is not finished")
    first = results[reference, plan["seeds"][0]]
    config = read_json(there[reference, plan["seeds"][0]] / "config.json")
    metric = config["train"]["metric"]
    for name in args.metrics:
        if name not in first["test"] or "@" not in name:
            raise UserError(f"--metrics: no {name!r}; of hr, ndcg, mrr at some k")
    if metric == "auc":
        metric = args.metrics[-1]

    ranks = {each: Ranks(folder) for each, folder in there.items()}
    users = ranks[reference, plan["seeds"][0]].users
    for each, found in ranks.items():
        if not np.array_equal(found.users, users):
            raise UserError(f"{there[each]}: test rows of other users")
    base = mean_values(ranks, reference, metric)
    rows = [
        baseline_row(name, ranks[reference, plan["seeds"][0]], args.metrics)
        for name in [*first["baselines"], *(["before"] if "before" in first else [])]
    ]
    trained: list[Row] = []
    tests: list[float | None] = []
    for point in points:
        if runs := {seed: r for (name, seed), r in results.items() if name == point}:
            difference = mean_values(ranks, point, metric) - base
            row = point_row(point, runs, ranks, args.metrics, metric, difference.mean())
            trained.append(row)
            plain = point == reference
            tests.append(None if plain else paired_randomisation(difference))
    corrected = iter(holm([x for x in tests if x is not None]))
    for row, test in zip(trained, tests, strict=True):
        if test is None:
            rows.append(replace(row, difference=None))
        else:
            rows.append(replace(row, p=next(corrected)))
    if args.published:
        rows += read_published(args.published, args.metrics)
    text = page(rows, args, plan, first, metric, len(np.unique(users)), len(missing))
    return text, rows


class Ranks:
    """`ranks.parquet` of a run."""

    def __init__(self, folder: Path):
        try:
            self.table = pl.read_parquet(folder / "ranks.parquet")
        except (OSError, pl.exceptions.PolarsError) as e:
            raise UserError(f"{folder / 'ranks.parquet'}: {e}") from None
        self.users = self.table["user"].to_numpy()

    def by_user(self, metric: str, system: str = "") -> np.ndarray:
        """values_V of a metric, of the last phase where no system is named."""
        rank_R = self.table[system or self.table.columns[-1]].to_numpy()
        return by_user(from_ranks(metric, rank_R), self.users)


def from_ranks(metric: str, rank_R: np.ndarray) -> np.ndarray:
    """values_R of hr, ndcg or mrr at some k, of targets at these ranks."""
    name, k = metric.split("@")
    near_R = rank_R <= int(k)
    gains = {"hr": 1.0, "ndcg": 1 / np.log2(1 + rank_R), "mrr": 1 / rank_R}
    return np.where(near_R, gains[name], 0.0)


def mean_values(
    ranks: dict[tuple[str, int], Ranks], point: str, metric: str
) -> np.ndarray:
    """values_V of a metric, means over the seeds of a point."""
    every = [x.by_user(metric) for (name, _), x in ranks.items() if name == point]
    means_V: np.ndarray = np.mean(every, axis=0)
    return means_V


def baseline_row(name: str, ranks: Ranks, metrics: Sequence[str]) -> Row:
    """A row of what was not trained."""
    found = {m: ranks.by_user(m, name) for m in metrics}
    values = {m: [float(x.mean())] for m, x in found.items()}
    return Row(f"({name})", values, {m: bootstrap(x) for m, x in found.items()}, {})


def point_row(
    point: str,
    runs: dict[int, dict[str, Any]],
    ranks: dict[tuple[str, int], Ranks],
    metrics: Sequence[str],
    metric: str,
    difference: float,
) -> Row:
    """A row of a point; `p` is still to be corrected."""
    each = {
        m: [float(ranks[point, s].by_user(m).mean()) for s in runs] for m in metrics
    }
    bounds = {m: bootstrap(mean_values(ranks, point, m)) for m in metrics}
    epochs = [sum(x["epochs"] for x in r["phases"].values()) for r in runs.values()]
    cost = {
        "seeds": len(runs),
        f"valid {metric}": mean(r["valid"][metric]["value"] for r in runs.values()),
        "epochs": mean(epochs),
        "train s": mean(r["seconds"].get("train", 0.0) for r in runs.values()),
        "all s": mean(r["seconds"]["total"] for r in runs.values()),
        "trained": mean(r["params"]["trainable"] for r in runs.values()),
        "MiB": mean(r["peak_memory_mib"] for r in runs.values()),
    }
    return Row(point, each, bounds, cost, float(difference))


def mean(values: Any) -> float:
    """Of numbers."""
    return float(np.mean(list(values)))


def read_published(path: Path, metrics: Sequence[str]) -> list[Row]:
    """Rows of a CSV with a name, a source, and some of the metrics.

    Raises:
      UserError: it cannot be read as that.
    """
    try:
        with path.open(newline="") as file:
            found = list(csv.DictReader(file))
        if not found or not {"name", "source"} <= set(found[0]):
            raise UserError(f"{path}: needs the columns name and source")
        return [
            Row(
                f"{x['name']} (published)",
                {m: [float(x[m])] for m in metrics if x.get(m)},
                {},
                {},
                note=x["source"],
            )
            for x in found
        ]
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: {e}") from None


def read_json(path: Path) -> Any:
    """A file of JSON.

    Raises:
      UserError: it is not there, or none.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: {e}") from None


def page(
    rows: Sequence[Row],
    args: argparse.Namespace,
    plan: dict[str, Any],
    first: dict[str, Any],
    metric: str,
    num_users: int,
    num_missing: int,
) -> str:
    """The table and what has to be known to read it."""
    costs = next(list(row.cost) for row in rows if row.cost)
    head = ["", *args.metrics, f"difference, {metric}", "p", *costs]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        shown = [cell(row, m) for m in args.metrics]
        shown.append("" if row.difference is None else f"{row.difference:+.4f}")
        shown.append("" if row.p is None else f"{row.p:.4f}")
        shown += [number(c, row.cost[c]) if row.cost else "" for c in costs]
        name = f"{row.name}, {row.note}" if row.note else row.name
        lines.append("| " + " | ".join([name, *shown]) + " |")
    p = first["protocol"]
    reference = args.reference or next(iter(plan["points"]))
    seeds = ", ".join(map(str, plan["seeds"]))
    data = f" --data={plan['data']}" if plan["data"] else ""
    lines += [
        "",
        f"Test: means of seeds {seeds} ± their standard deviation, and 95% bootstrap "
        f"intervals of the seeds' mean over the {num_users:,} users. Difference from "
        f"`{reference}`, with p of a paired randomisation test over users (10,000 "
        "flips, values first averaged over seeds), corrected by Holm for the rows of "
        "the table. Rows in parentheses are not trained. The epoch is chosen on "
        "validation.",
        "",
        f"Protocol {first['fingerprint']}: {p['split']}, {p['candidates']} ranked, "
        f"seen items {'' if p['mask_seen'] else 'not '}masked, ties {p['ties']}, "
        f"history of {p['history']}.",
        "",
        f"    python -m experiments.sweep --config={plan['config']}{data} --out=RUNS "
        f"--seeds {' '.join(map(str, plan['seeds']))}",
        "    python -m experiments.collect RUNS",
    ]
    if num_missing:
        lines += ["", f"{num_missing} runs are not finished and not in the table."]
    return "\n".join(lines)


def cell(row: Row, metric: str) -> str:
    """Mean, deviation and interval."""
    if not (values := row.values.get(metric)):
        return ""
    text = f"{np.mean(values):.4f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.4f}"
    if metric in row.intervals:
        text += " [{:.4f}, {:.4f}]".format(*row.intervals[metric])
    return text


def number(column: str, value: float) -> str:
    """A number of a cost column."""
    return f"{value:.4f}" if column.startswith("valid") else f"{value:,.0f}"


def write_csv(path: Path, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """The table's numbers, every seed's too."""
    costs = next(list(row.cost) for row in rows if row.cost)
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        head = [x for m in metrics for x in (m, f"{m} low", f"{m} high", f"{m} seeds")]
        out.writerow(["name", *head, "difference", "p", *costs, "note"])
        for row in rows:
            line: list[Any] = [row.name]
            for m in metrics:
                values = row.values.get(m)
                line.append(f"{np.mean(values):.6f}" if values else "")
                line += [f"{x:.6f}" for x in row.intervals.get(m, ())] or ["", ""]
                line.append(" ".join(f"{x:.6f}" for x in values or ()))
            line += ["" if x is None else f"{x:.6f}" for x in (row.difference, row.p)]
            line += [row.cost.get(c, "") for c in costs]
            out.writerow([*line, row.note])


if __name__ == "__main__":
    main()
