"""Makes the tables of the ablations and of the headline configs.

    python -m experiments.reproduce --out=runs/tables

Makes the tables of MovieLens 100K, and with `--data=DIR` also those of the data sets
`amazon-industrial` and `amazon-beauty` in DIR. Finished runs are not repeated, and a
run that belongs to two tables is made once. Writes table.md, table.csv and plot.png to
`experiments/NAME/DATA_SET`, or below `--tables=DIR`. The table of the protocols is made
last.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import collect, sweep
from experiments.protocol import run as run_lib
from experiments.sweeping.command import path_argument, session
from experiments.sweeping.plan import check_runs
from experiments.tabling.plots import check_plots
from recjax.common.errors import STOPPED, UserError

HERE = Path(os.path.relpath(Path(__file__).parent))  # relative, as in the tables
DEFAULT_SEEDS = [0, 1, 2]
MOVIES, INDUSTRIAL, BEAUTY = "ml100k", "amazon_industrial", "amazon_beauty"
DRY = "check variants and data, and list the missing runs"
ONLY = "folders such as pooling or pooling/ml100k (default: all)"
PROTOCOL = "protocol"  # no sweep: one variant under several protocols
PROTOCOL_NAMES = {PROTOCOL, f"{PROTOCOL}/{MOVIES}"}
DATA_SET_TITLES = {
    MOVIES: "MovieLens 100K",
    INDUSTRIAL: "Amazon Industrial and Scientific",
    BEAUTY: "Amazon Beauty",
}


class Table(NamedTuple):
    """A sweep on a data set and the options of its table.

    Attributes:
      name: folder below `experiments`.
      title: title of the page and the plot, without the data set.
      data: a key of `DATA_SET_TITLES`.
      config: config file; "" is the ablation with the same name.
      options: options of `experiments.collect`.
    """

    name: str
    title: str
    data: str = MOVIES
    config: str = ""
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder below the runs, and below `experiments`."""
        return f"{self.name}/{self.data}"


ABLATIONS = {
    "freezing": "how deep the encoder is trained",
    "pooling": "pooling of the token states",
    "sources": "items represented by id, text or both",
    "losses": "losses and negatives",
    "towers": "user towers",
    "rates": "one learning rate or two",
    "pretrained": "pretrained or random weights",
    "vectors": "layers between frozen vectors and the towers",
    "decay": "warm-up and weight decay",
    "cold": "items without training events",
}
OPTIONS = {"cold": ("--items=new",)}
ALL_FOUR = ("--metrics", "hr@10", "ndcg@10", "hr@5", "ndcg@5")
ALSO_INDUSTRIAL = ("freezing", "pooling", "sources", "losses", "towers")
TABLES = [
    *(
        Table(name, title, options=OPTIONS.get(name, ()))
        for name, title in ABLATIONS.items()
    ),
    *(Table(name, ABLATIONS[name], INDUSTRIAL) for name in ALSO_INDUSTRIAL),
    Table("cold", ABLATIONS["cold"], BEAUTY, options=OPTIONS["cold"]),
    *(
        Table(
            "headlines",
            "the full model and its ablations",
            name,
            f"configs/{name}.py",
            ALL_FOUR if name == INDUSTRIAL else (),
        )
        for name in DATA_SET_TITLES
    ),
]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs and collects; exit code 1 if a table could not be made, 2 after an error.

    A signal during a sweep ends the program with `STOPPED`, after the runs have saved.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--out", type=path_argument, default=Path("runs/tables"), help="runs"
    )
    parser.add_argument("--only", nargs="+", help=ONLY)
    parser.add_argument(
        "--data", type=path_argument, help="directory of the Amazon data sets"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=DEFAULT_SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs")
    tables = "directory of the tables (default: experiments)"
    parser.add_argument("--tables", type=path_argument, default=HERE, help=tables)
    parser.add_argument("--dry_run", action="store_true", help=DRY)
    args = parser.parse_args(argv)
    with session(args.out, dry=args.dry_run):
        start = time.monotonic()
        failed = make_all(args)
    print(f"{(time.monotonic() - start) / 60:.0f} min")
    if failed:
        print(f"error: not made: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def make_all(args: argparse.Namespace) -> list[str]:
    """Makes the chosen tables, and returns the names of those that failed.

    Raises:
      UserError: a table or a data set does not exist.
    """
    check_plots()  # before the first sweep, not after it
    chosen = choose(args.only, args.data)
    failed = []
    check_runs(args.seeds, args.jobs)
    if not args.dry_run:
        args.tables.mkdir(parents=True, exist_ok=True)
    if args.tables.exists() and not os.access(args.tables, os.W_OK):
        raise UserError(f"--tables {args.tables}: cannot be written; choose another")
    for table in chosen:
        print(f"\n{table.folder}: {table.title}", flush=True)
        if not make(table, args):
            failed.append(table.folder)
    if args.dry_run:
        return failed
    if not args.only or PROTOCOL_NAMES & {*args.only}:
        print(f"\n{PROTOCOL}: the same models under several protocols", flush=True)
        if not make_protocol(args):
            failed.append(PROTOCOL)
    return failed


def choose(only: Sequence[str] | None, data: Path | None) -> list[Table]:
    """Returns the chosen tables, without those whose data set is not given.

    Args:
      only: folders such as `pooling` or `pooling/ml100k`; None is all.
      data: directory of the Amazon data sets; without it their tables are omitted.

    Raises:
      UserError: there is no such folder, or its data set does not exist.
    """
    names = [*dict.fromkeys(table.name for table in TABLES), PROTOCOL]
    chosen: list[Table] = []
    for name in only or names:
        found = [table for table in TABLES if name in (table.name, table.folder)]
        if not found and name not in PROTOCOL_NAMES:
            folders = [*(table.folder for table in TABLES), *sorted(PROTOCOL_NAMES)]
            raise UserError(f"--only: no {name!r}; choose from {', '.join(folders)}")
        if data is None and name in [x.folder for x in found if x.data != MOVIES]:
            raise UserError(
                f"--only {name}: needs the Amazon data sets; add --data=DIR"
            )
        chosen += [x for x in found if x.data == MOVIES or data is not None]
    for table in chosen:
        if (source := data_source(table, data)) and not source.is_dir():
            raise UserError(f"--data {data}: has no directory {source.name}")
    return [table for table in TABLES if table in chosen]


def make(table: Table, args: argparse.Namespace) -> bool:
    """Runs what is missing and writes a table; returns whether it succeeded."""
    runs = args.out / table.folder
    target = args.tables / table.folder
    dry = ["--dry_run"] if args.dry_run else []
    to_sweep = sweep_arguments(table, args.out, args.seeds, args.jobs, args.data, dry)
    if args.dry_run:
        return run(sweep.main, to_sweep)
    to_collect = [str(runs), f"--out={target}", *table.options]
    to_collect.append(f"--title={DATA_SET_TITLES[table.data]}: {table.title}")
    own = HERE / table.folder
    for folder in (own, own.parent):  # for the data set, or for all
        if (published := folder / "published.csv").exists():
            to_collect.append(f"--published={published}")
            break
    return run(sweep.main, to_sweep) and run(collect.main, to_collect)


def sweep_arguments(
    table: Table,
    out: Path,
    seeds: Sequence[int],
    jobs: int,
    data: Path | None,
    more: Sequence[str] = (),
) -> list[str]:
    """Returns the arguments of `experiments.sweep` for the runs of a table.

    Args:
      table: the table.
      out: directory of all sweeps; runs in it are reused.
      seeds: each variant is run with each of them.
      jobs: number of parallel runs.
      data: directory of the Amazon data sets, if given.
      more: further options of `experiments.sweep`.
    """
    config = table.config or f"configs/ablations/{table.name}.py"
    arguments = [f"--config={config}", f"--out={out / table.folder}"]
    arguments += ["--seeds", *map(str, seeds)]
    arguments += [f"--reuse={out}"] if out.is_dir() else []  # a dry run creates none
    arguments += [f"--jobs={jobs}", *more]
    if not table.config and table.data != MOVIES:
        arguments.append(f"--data={table.data}")
    if source := data_source(table, data):
        arguments += ["--", f"--config.data.source={source}"]
    return arguments


def data_source(table: Table, data: Path | None) -> Path | None:
    """Returns the directory of a table's data set; None if it is downloaded."""
    if table.data == MOVIES or data is None:
        return None
    return (data / table.data.replace("_", "-")).resolve()


def make_protocol(args: argparse.Namespace) -> bool:
    """Makes the table of the protocols; returns whether it succeeded."""
    target = args.tables / PROTOCOL / MOVIES
    arguments = [str(args.out / PROTOCOL), f"--out={target}", f"--jobs={args.jobs}"]
    arguments += ["--seeds", *map(str, args.seeds), f"--reuse={args.out}"]
    return run(run_lib.main, arguments)


def run(program: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> bool:
    """Calls a program of this package; returns whether it succeeded.

    A program that was stopped by a signal ends this one too.
    """
    try:
        program(arguments)
    except SystemExit as e:
        if e.code == STOPPED:
            raise
        return not e.code
    return True


if __name__ == "__main__":
    main()
