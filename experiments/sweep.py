"""Runs every variant of a config's sweep with several seeds.

    python -m experiments.sweep --config=configs/ablations/pooling.py --out=runs/pooling

Each run has the directory OUT/VARIANT/SEED, and its output goes to OUT/logs. The same
command resumes after an interruption. Finished runs are not repeated, and later
commands can add variants and seeds. Arguments after `--` are passed to every run:
`-- --config.data.source=DIR`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.sweeping.board import write_columns
from experiments.sweeping.command import (
    POLL,
    add_variants,
    make_bar,
    path_argument,
    session,
    split_arguments,
)
from experiments.sweeping.load import is_finished, read_results, resolve
from experiments.sweeping.plan import Plan, make_plan, save_plan
from experiments.sweeping.pool import Pool
from experiments.sweeping.reuse import find_finished, link
from recjax.common.config import flat_config
from recjax.common.files import read_json
from recjax.runtime.locks import is_locked
from recjax.runtime.provenance import CODE

BOARD_METRICS = ("hr@10", "ndcg@10")  # columns of TensorBoard's table of a sweep
REUSE = "directories of other sweeps; their finished runs of the same config are linked"
DATA = "a data set that the config knows, or FILE.py with a function describe(config)"
DRY = "check every variant and list the missing runs, without running or writing"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is missing; exit code 1 if a run failed, 2 if nothing can run."""
    own, arguments = split_arguments(argv)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", required=True, help="config file with a `sweep`")
    parser.add_argument(
        "--out", required=True, type=path_argument, help="directory of the runs"
    )
    add_variants(parser, "variants to run (default: all of the sweep)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", default="", help=DATA)
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs")
    parser.add_argument(
        "--reuse", nargs="+", type=path_argument, default=[], help=REUSE
    )
    parser.add_argument("--dry_run", action="store_true", help=DRY)
    args = parser.parse_args(own)
    with session(args.out, dry=args.dry_run):
        plan = make_plan(args, arguments)
        reusable = find_finished(plan, args.reuse)
        for (variant, seed), run_directory in reusable.items():
            print(f"{variant}/{seed}: the same as {run_directory}")
        if args.dry_run:
            print_missing(plan, {*reusable})
            return
        save_plan(plan)
        link(plan, reusable)
        write_board(plan)
        if old := made_by_other_code(plan):
            print(
                f"note: {len(old)} finished runs were made by a different version of "
                f"the code, for example {old[0].resolve()}; to repeat a run, delete "
                "its directory"
            )
        failed = run(plan, args.jobs)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failed:
        sys.exit(1)
    print(
        f"all {len(plan.runs())} runs are finished; "
        f"python -m experiments.collect {args.out} makes the table"
    )


def print_missing(plan: Plan, elsewhere: set[tuple[str, int]]) -> None:
    """Prints which runs are missing, not counting those that are finished elsewhere."""
    here = {run for run in plan.runs() if is_finished(plan.folder(*run))}
    finished = here | elsewhere
    missing = [
        (variant, seed)
        for variant, seed in plan.runs()
        if (variant, seed) not in finished and variant not in plan.refused
    ]
    for variant in plan.variants:
        if seeds := [str(seed) for name, seed in missing if name == variant]:
            print(f"{variant}: to be run with seeds {', '.join(seeds)}")
    print(
        f"dry run: {len(finished)} of {len(plan.runs())} runs are finished, "
        f"{len(missing)} can be run; nothing was run or written"
    )


def write_board(plan: Plan) -> None:
    """Writes the columns of TensorBoard's table of the sweep."""
    seed = plan.seeds[0]
    configs = [resolve(plan.flags(variant, seed)) for variant in plan.variants]
    metrics = [f"test/{metric}" for metric in BOARD_METRICS]
    metrics.append(f"valid/kept/{configs[0].train.metric}")
    write_columns(plan.out, [flat_config(config) for config in configs], metrics)


def run(plan: Plan, jobs: int) -> dict[str, str]:
    """Runs what is not finished, and returns the last message of each failed run."""
    runner = _SweepRunner(plan, jobs)
    try:
        with runner.bar:
            while runner.waiting or runner.pool.running:
                runner.start()
                time.sleep(POLL)
                runner.reap()
                runner.show()
    finally:
        runner.pool.stop()
    return runner.failed


class _SweepRunner:
    """State of a sweep that is running, see `run`.

    Attributes:
      failed: reasons by the name of the run.
      elapsed: seconds of the finished runs, by variant.
      fingerprints: protocol of the first finished run, by the keys that decide it.
      waiting: runs that have not been started.
    """

    def __init__(self, plan: Plan, jobs: int):
        self.plan = plan
        self.pool = Pool(jobs)
        self.jobs = jobs
        self.failed: dict[str, str] = {}
        self.elapsed: dict[str, list[float]] = {}
        self.fingerprints: dict[str, str] = {}
        self.waiting: list[tuple[str, int]] = []
        for variant, seed in plan.runs():
            if is_finished(folder := plan.folder(variant, seed)):
                self.count(variant, read_results(folder))
            elif variant in plan.refused:
                self.failed[f"{variant} {seed}"] = plan.refused[variant]
            else:
                self.waiting.append((variant, seed))
        self._reported = set[Path]()  # locked directories
        total = len(plan.runs())
        self.bar = make_bar(total - len(self.waiting), total, "runs")

    def start(self) -> None:
        """Starts a run in every free slot, unless its directory is locked.

        With the last seed the longest runs start first, so that no slot is idle for
        long at the end.
        """
        if len({seed for _, seed in self.waiting}) == 1:
            self.waiting.sort(key=lambda run: -self.expected(run[0]))
        for run in self.waiting[:]:
            if not self.pool.free:
                return
            folder = self.plan.folder(*run)
            if not is_locked(folder):
                self.waiting.remove(run)
                job = self.plan.job(*run)
                self.pool.start(job)
                self.bar.write(f"{job.name}: started")
            elif folder not in self._reported:
                # An interrupted sweep may have left a run that is still saving.
                self._reported.add(folder)
                self.bar.write(f"{folder}: in use by another run; waiting for its end")

    def reap(self) -> None:
        """Handles the runs that have ended."""
        for job, code in self.pool.ended():
            variant, seed = job.name.rsplit(" ", 1)
            folder = self.plan.folder(variant, int(seed))
            if code:
                message = job.last_line()
                self.failed[job.name] = f"exit code {code}: {message} ({job.log})"
                self.bar.write(f"{job.name}: FAILED with exit code {code}")
            else:
                self.bar.write(f"{job.name}: {outcome(folder)}")
                if not self.count(variant, read_results(folder)):
                    self.bar.write(
                        f"note: {job.name}: its data differ from those of earlier "
                        "runs; no table can hold both"
                    )
            self.bar.update()

    def count(self, variant: str, results: dict[str, Any]) -> bool:
        """Counts a finished run; returns whether its data are those of earlier runs."""
        self.elapsed.setdefault(variant, []).append(results["seconds"]["total"])
        fingerprint: str = results["fingerprint"]
        protocol = self.plan.protocols[variant]
        return self.fingerprints.setdefault(protocol, fingerprint) == fingerprint

    def expected(self, variant: str) -> float:
        """Returns the expected seconds of a run.

        This is the mean over the finished runs of the variant, or of all variants if
        it has none, and 0 before the first run ends.
        """
        of_all = [seconds for runs in self.elapsed.values() for seconds in runs]
        seconds = self.elapsed.get(variant, of_all)
        return sum(seconds) / max(len(seconds), 1)

    def show(self) -> None:
        """Shows the running jobs and the estimated time that is left.

        A resumed run is expected to take as long as one from the beginning.
        """
        running = [job for job, _ in self.pool.running.values()]
        names = [f"{job.name} for {job.elapsed:.0f} s" for job in running]
        parts = [f"{len(self.failed)} failed"] if self.failed else []
        if self.elapsed:
            waiting = [self.expected(variant) for variant, _ in self.waiting]
            rest = [
                self.expected(job.name.rsplit(" ", 1)[0]) - job.elapsed
                for job in running
            ]
            seconds = seconds_left(waiting, rest, self.jobs)
            left = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
            parts.append(f"about {left} left")
        parts += [f"running {', '.join(names)}"] if names else []
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(0)


def seconds_left(
    waiting: Sequence[float], running: Sequence[float], jobs: int
) -> float:
    """Returns the seconds until all runs end, if each free slot takes the next run.

    Args:
      waiting: expected seconds of the runs that have not started, in their order.
      running: expected remaining seconds of the running ones; negative counts as 0.
      jobs: number of slots.
    """
    slots = [max(seconds, 0.0) for seconds in running]
    slots += [0.0] * (jobs - len(running))
    for seconds in waiting:
        slots[slots.index(min(slots))] += seconds
    return max(slots)


def made_by_other_code(plan: Plan) -> list[Path]:
    """Returns finished runs made by other code; any change of the source counts."""
    folders = [plan.folder(variant, seed) for variant, seed in plan.runs()]
    return [
        folder
        for folder in folders
        if is_finished(folder) and read_results(folder)["code"] != CODE
    ]


def outcome(folder: Path) -> str:
    """Describes a finished run in one line."""
    results = read_results(folder)
    metric = read_json(folder / "config.json")["train"]["metric"]
    valid, test = (results[split][metric]["value"] for split in ("valid", "test"))
    seconds = f"{results['seconds']['total']:.0f} s"
    return f"{metric} {valid:.4f} on validation, {test:.4f} on the test, {seconds}"


if __name__ == "__main__":
    main()
