"""Repeats one run of every committed table and compares the results.

    python -m experiments.replay --out=runs/replay

Chooses the cheapest variant of each table.csv that hits any target, trains it again
with its first seed, and prints how its test ranks and metrics compare with the
committed ones. The tables are those of MovieLens 100K, and with `--data=DIR` also those
of the Amazon data sets in DIR. The same command resumes after an interruption. The
table of `experiments/protocol` is not replayed: it evaluates runs of another table.
"""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import reproduce, sweep
from experiments.reproduce import Table
from experiments.sweeping.command import path_argument, session
from experiments.sweeping.load import read_results
from experiments.sweeping.plan import check_runs
from experiments.tabling.finished import rank_digest, read_sweep
from experiments.tabling.table import RANKS, markdown_line
from recjax.common.errors import UserError
from recjax.common.files import atomic_files
from recjax.runtime.provenance import CODE

TOLERANCE = 0.002  # a metric may differ by this much on another processor
RANKS_IDENTICAL = "ranks identical"
METRICS_IDENTICAL = "metrics identical to 6 decimals"
JOBS = "parallel runs; use that of the sweep, as results depend on cores per run"
RECORD = (
    "add the digest of the ranks to tables without it, if all metrics are identical"
)


@dataclass(frozen=True)
class Committed:
    """The run of a committed table that is repeated.

    Attributes:
      table: the table, as defined in `experiments.reproduce`.
      path: path of its table.csv.
      variant: the cheapest trained variant that hits any target.
      seed: the first seed of this variant.
      digest: digest of the test ranks; empty if the table has none.
      metrics: values with six decimals, as in the table.
    """

    table: Table
    path: Path
    variant: str
    seed: int
    digest: str
    metrics: dict[str, str]


@dataclass(frozen=True)
class Replay:
    """Results of the repeated run.

    Attributes:
      digest: digest of its test ranks; empty if the run failed.
      metrics: values with six decimals.
      seconds: duration of the run.
    """

    digest: str
    metrics: dict[str, str]
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    """Replays the tables; exit code 1 if one does not hold, 2 after an error."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--out", type=path_argument, default=Path("runs/replay"), help="runs"
    )
    parser.add_argument("--only", nargs="+", help=reproduce.ONLY)
    parser.add_argument(
        "--data", type=path_argument, help="directory of the Amazon data sets"
    )
    parser.add_argument("--jobs", type=int, default=1, help=JOBS)
    tables = "directory of the tables (default: experiments)"
    parser.add_argument(
        "--tables", type=path_argument, default=reproduce.HERE, help=tables
    )
    parser.add_argument("--record", action="store_true", help=RECORD)
    args = parser.parse_args(argv)
    with session(args.out):
        rows = replay_all(args)
    lines = [
        markdown_line(
            ["table", "variant", "seed", "committed / now", "verdict", "seconds"]
        ),
        "|---|---|---:|---|---|---:|",
    ]
    print("\n".join(["", *lines, *(describe(*row) for row in rows)]))
    if not all(holds(*row) for row in rows):
        sys.exit(1)


def replay_all(args: argparse.Namespace) -> list[tuple[Committed, Replay]]:
    """Replays every chosen table, and records digests with `--record`.

    Raises:
      UserError: a table or data set does not exist, or runs are of other code.
    """
    chosen = reproduce.choose(args.only, args.data)
    if not chosen:
        raise UserError("--only: these tables have no runs to replay; choose others")
    check_runs(reproduce.DEFAULT_SEEDS, args.jobs)
    check_code(args.out)
    # Read all tables first, so that a damaged one ends the program before any run.
    tables = [read_committed(table, args.tables) for table in chosen]
    replays = []
    for committed in tables:
        name = f"{committed.table.folder}: {committed.variant}, seed {committed.seed}"
        print(f"\n{name}", flush=True)
        now = replay(committed, args)
        unknown = args.record and not committed.digest
        if unknown and verdict(committed, now) == METRICS_IDENTICAL:
            record(committed, now.digest)
        replays.append((committed, now))
    return replays


def check_code(out: Path) -> None:
    """Raises UserError if runs were made by a different version of the code.

    The sweep would treat them as finished, and nothing would be replayed.
    """
    for path in sorted(out.glob("**/results.json")):
        if read_results(path.parent)["code"] != CODE:
            raise UserError(
                f"{path.parent}: was made by a different version of the code, so "
                f"nothing would be replayed; delete {out}, or choose another --out"
            )


def read_committed(table: Table, tables: Path) -> Committed:
    """Reads the cheapest variant of a committed table.

    Args:
      table: the table, as defined in `experiments.reproduce`.
      tables: directory of the tables.

    Raises:
      UserError: table.csv does not exist, or `experiments.collect` did not write it.
    """
    path = tables / table.folder / "table.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            variants = [row for row in csv.DictReader(file) if row["seeds"]]
        # Without a hit all metrics are zero, whatever the ranks are.
        row = min(variants, key=lambda x: (not any_hit(x), float(x["all s"])))
        metrics = first_values(row)
        first = row.get(RANKS, "").split()[:1]
        # A table without digests does not name its seeds: they are the default ones.
        seed, digest = str(reproduce.DEFAULT_SEEDS[0]), ""
        if first:
            seed, digest = first[0].split(":")
        return Committed(table, path, row["name"], int(seed), digest, metrics)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    except (ValueError, KeyError, IndexError, AttributeError, csv.Error):
        raise UserError(
            f"{path}: damaged; restore the committed table with git, or run "
            "experiments.reproduce"
        ) from None


def first_values(row: Mapping[str, str]) -> dict[str, str]:
    """Returns the metrics of the first seed in a row of a table.csv."""
    return {
        column.removesuffix(" seeds"): values.split()[0]
        for column, values in row.items()
        if column.endswith(" seeds") and column != "difference seeds"
    }


def any_hit(row: Mapping[str, str]) -> bool:
    """Returns whether any metric of the first seed is not zero."""
    return any(float(value) for value in first_values(row).values())


def replay(committed: Committed, args: argparse.Namespace) -> Replay:
    """Trains the run again, unless it is finished, and reads its results."""
    variant, seed = committed.variant, committed.seed
    arguments = reproduce.sweep_arguments(
        committed.table,
        args.out,
        [seed],
        args.jobs,
        args.data,
        [f"--variants={variant}"],
    )
    if not reproduce.run(sweep.main, arguments):
        return Replay("", {}, 0.0)
    folder = args.out / committed.table.folder
    items = items_of(committed.table)
    # The directory may name other runs, of earlier calls, that are not finished.
    made = read_sweep(folder, variant, partial=True, items=items, variants=[variant])
    index = made.seeds(variant).index(seed)
    return Replay(
        rank_digest(made.ranks[variant, seed].rank_R),
        {
            metric: f"{made.by_seed(variant, metric).mean(axis=1)[index]:.6f}"
            for metric in committed.metrics
        },
        made.results[variant, seed]["seconds"]["total"],
    )


def items_of(table: Table) -> str:
    """Returns the value of `--items` with which a table is collected."""
    flag = "--items="
    values = [x.removeprefix(flag) for x in table.options if x.startswith(flag)]
    return values[-1] if values else "all"


def largest_difference(committed: Committed, now: Replay) -> float:
    """Returns the largest difference of a metric, rounded to six decimals."""
    return max(
        round(abs(float(value) - float(now.metrics[metric])), 6)
        for metric, value in committed.metrics.items()
    )


def holds(committed: Committed, now: Replay) -> bool:
    """Returns whether the repeated run agrees with the table within the tolerance."""
    if not now.digest:
        return False
    same = now.digest == committed.digest
    return same or largest_difference(committed, now) <= TOLERANCE


def verdict(committed: Committed, now: Replay) -> str:
    """Describes how the two runs compare.

    Different ranks do not refute a table: another processor rounds differently.
    """
    if not now.digest:
        return "differs (the run failed)"
    if now.digest == committed.digest:
        return RANKS_IDENTICAL
    if committed.metrics == now.metrics:
        return METRICS_IDENTICAL
    how = f"within {TOLERANCE}" if holds(committed, now) else "differs"
    return f"{how} (largest difference {largest_difference(committed, now):.6f})"


def describe(committed: Committed, now: Replay) -> str:
    """Returns a line of the printed table."""
    values = [
        f"{metric} {value} / {now.metrics.get(metric, 'none')}"
        for metric, value in committed.metrics.items()
    ]
    cells = [committed.table.folder, committed.variant, str(committed.seed)]
    cells += [", ".join(values), verdict(committed, now), f"{now.seconds:.0f}"]
    return markdown_line(cells)


def record(committed: Committed, digest: str) -> None:
    """Adds a digest to a table.csv without changing any other cell.

    Args:
      committed: the run, without a digest.
      digest: digest of its test ranks.

    Raises:
      UserError: writing the table would change other cells.
    """
    path = committed.path
    before = path.read_bytes().decode("utf-8")
    rows = list(csv.reader(io.StringIO(before, newline="")))
    if to_csv(rows) != before:
        raise UserError(f"{path}: was not written by experiments.collect")
    head = rows[0]
    if RANKS not in head:
        column = head.index("p") + 1
        for row in rows:
            row.insert(column, "")
        head[column] = RANKS
    (row,) = (row for row in rows[1:] if row[0] == committed.variant)
    row[head.index(RANKS)] = f"{committed.seed}:{digest}"
    with atomic_files(path) as (part,):
        part.write_bytes(to_csv(rows).encode("utf-8"))


def to_csv(rows: Sequence[Sequence[str]]) -> str:
    """Returns the text of a table.csv, as `experiments.collect` writes it."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    main()
