"""The tables of the ablations and of the headline configs, by one command.

    python -m experiments.reproduce --out=runs/tables

Without `--data=DIR` those of MovieLens 100K; with it also those of the data sets in
DIR, `amazon-industrial` and `amazon-beauty`. Finished runs are not repeated, and a run
that stands in two tables is made once. Each table goes to `experiments/NAME/DATA_SET`,
or below `--tables=DIR`: table.md, table.csv and plot.png; so do the protocols that one
state is asked under.
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
from experiments.sweeping.command import session
from experiments.sweeping.plan import check_runs
from experiments.tabling.plots import check_plots
from recjax.common.errors import STOPPED, UserError

HERE = Path(os.path.relpath(Path(__file__).parent))  # as the tables name it
DEFAULT_SEEDS = [0, 1, 2]
MOVIES, INDUSTRIAL, BEAUTY = "ml100k", "amazon_industrial", "amazon_beauty"
DRY = "check variants and data, and say which runs are left"
PROTOCOL = "protocol"  # no sweep, but states of one under several
PROTOCOL_NAMES = {PROTOCOL, f"{PROTOCOL}/{MOVIES}"}
CALLED = {
    MOVIES: "MovieLens 100K",
    INDUSTRIAL: "Amazon Industrial and Scientific",
    BEAUTY: "Amazon Beauty",
}


class Table(NamedTuple):
    """A sweep on a data set, and how it is shown.

    Attributes:
      name: of the folder.
      title: of the page and the plot.
      data: a key of `CALLED`.
      config: file; "" is the ablation of that name.
      options: of `experiments.collect`.
    """

    name: str
    title: str
    data: str = MOVIES
    config: str = ""
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Below the runs, and below this directory."""
        return f"{self.name}/{self.data}"


ABLATIONS = {
    "freezing": "how deep the encoder is trained",
    "pooling": "which token states an item is known by",
    "sources": "items known by id, text or both",
    "losses": "losses and negatives",
    "towers": "user towers",
    "rates": "one learning rate or two",
    "pretrained": "pretrained or random weights",
    "vectors": "between frozen vectors and the towers",
    "decay": "warm-up and weight decay",
    "cold": "items that are new at the test",
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
        for name in CALLED
    ),
]


def main(argv: Sequence[str] | None = None) -> None:
    """Sweeps and collects; exit code 1 where a table could not be made, 2 at mistakes.

    A signal during a sweep ends it all with `STOPPED`, after the runs have been saved.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    which = "folders, as pooling or pooling/ml100k; all without"
    parser.add_argument("--only", nargs="+", help=which)
    parser.add_argument("--data", type=Path, help="directory of the Amazon data sets")
    parser.add_argument("--seeds", nargs="+", type=int, default=DEFAULT_SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    where_to = "of the tables; where the repository has its own without"
    parser.add_argument("--tables", type=Path, default=HERE, help=where_to)
    parser.add_argument("--dry_run", action="store_true", help=DRY)
    args = parser.parse_args(argv)
    with session(args.out, dry=args.dry_run):
        began, failed = time.monotonic(), make_all(args)
    print(f"{(time.monotonic() - began) / 60:.0f} min")
    if failed:
        print(f"error: not made: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def make_all(args: argparse.Namespace) -> list[str]:
    """Makes what is asked for; what could not be made.

    Raises:
      UserError: something asked for that there is not, or data that are not there.
    """
    check_plots()  # now, not after the first sweep
    chosen, failed = choose(args.only, args.data), []
    check_runs(args.seeds, args.jobs)
    if not args.dry_run:
        args.tables.mkdir(parents=True, exist_ok=True)
    if args.tables.exists() and not os.access(args.tables, os.W_OK):
        raise UserError(f"--tables {args.tables}: may not be written")
    for table in chosen:
        print(f"\n{table.folder}: {table.title}", flush=True)
        if not make(table, args):
            failed.append(table.folder)
    if args.dry_run:
        return failed
    if not args.only or PROTOCOL_NAMES & {*args.only}:
        print(f"\n{PROTOCOL}: the same states under several protocols", flush=True)
        if not make_protocol(args):
            failed.append(PROTOCOL)
    return failed


def choose(only: Sequence[str] | None, data: Path | None) -> list[Table]:
    """The tables of some folders, or all; without data sets those that need none.

    Raises:
      UserError: no such folder, or its data set is not there.
    """
    names = [*dict.fromkeys(table.name for table in TABLES), PROTOCOL]
    chosen: list[Table] = []
    for name in only or names:
        found = [table for table in TABLES if name in (table.name, table.folder)]
        if not found and name not in PROTOCOL_NAMES:
            folders = [*(table.folder for table in TABLES), *sorted(PROTOCOL_NAMES)]
            raise UserError(f"--only: no {name!r} among {', '.join(folders)}")
        if data is None and name in [x.folder for x in found if x.data != MOVIES]:
            raise UserError(f"--only {name}: needs --data")
        chosen += [x for x in found if x.data == MOVIES or data is not None]
    for table in chosen:
        if (source := where(table, data)) and not source.is_dir():
            raise UserError(f"--data {data}: no {source.name} in it")
    return [table for table in TABLES if table in chosen]


def make(table: Table, args: argparse.Namespace) -> bool:
    """Runs what is missing of a table and writes it; whether that went well."""
    runs, there = args.out / table.folder, args.tables / table.folder
    dry = ["--dry_run"] if args.dry_run else []
    to_sweep = sweep_arguments(table, args.out, args.seeds, args.jobs, args.data, dry)
    if args.dry_run:
        return run(sweep.main, to_sweep)
    to_collect = [str(runs), f"--out={there}", *table.options]
    to_collect.append(f"--title={CALLED[table.data]}: {table.title}")
    own = HERE / table.folder
    for folder in (own, own.parent):  # of the data set, or of the claim
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
      table: whose runs are made.
      out: directory of all sweeps; runs in it are reused.
      seeds: one run of each variant for each of them.
      jobs: runs at a time.
      data: directory of the Amazon data sets, if it is given.
      more: further options of the sweep.
    """
    config = table.config or f"configs/ablations/{table.name}.py"
    arguments = [f"--config={config}", f"--out={out / table.folder}"]
    arguments += ["--seeds", *map(str, seeds)]
    arguments += [f"--reuse={out}"] if out.is_dir() else []  # not before a dry run
    arguments += [f"--jobs={jobs}", *more]
    if not table.config and table.data != MOVIES:
        arguments.append(f"--data={table.data}")
    if source := where(table, data):
        arguments += ["--", f"--config.data.source={source}"]
    return arguments


def where(table: Table, data: Path | None) -> Path | None:
    """The data set of a table, unless it needs none."""
    if table.data == MOVIES or data is None:
        return None
    return (data / table.data.replace("_", "-")).resolve()


def make_protocol(args: argparse.Namespace) -> bool:
    """The protocols' table; whether that went well."""
    there = args.tables / PROTOCOL / MOVIES
    arguments = [str(args.out / PROTOCOL), f"--out={there}", f"--jobs={args.jobs}"]
    arguments += ["--seeds", *map(str, args.seeds), f"--reuse={args.out}"]
    return run(run_lib.main, arguments)


def run(program: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> bool:
    """Whether a program of this package ended well; leaves where it was stopped."""
    try:
        program(arguments)
    except SystemExit as e:
        if e.code == STOPPED:
            raise
        return not e.code
    return True


if __name__ == "__main__":
    main()
