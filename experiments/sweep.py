"""Runs every point of a config's sweep with several seeds.

    python -m experiments.sweep --config=configs/ablations/pooling.py --out=runs/pooling

A run's directory is OUT/POINT/SEED, what it printed is in OUT/logs. The same command
goes on after an interruption; what is finished is not run again, and more points and
seeds can be added. What follows `--` is passed on to every run:
`-- --config.data.source=DIR`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.sweeping.board import write_columns
from experiments.sweeping.command import POLL, make_bar, session, split_arguments
from experiments.sweeping.load import is_finished, read_json, read_results, resolve
from experiments.sweeping.plan import Plan, make_plan, save_plan
from experiments.sweeping.pool import Pool
from experiments.sweeping.reuse import find_finished, link
from recjax.common.config import flat_config
from recjax.runtime.locks import is_locked
from recjax.runtime.provenance import CODE

SHOWN = ("hr@10", "ndcg@10")  # in TensorBoard's table of a sweep
REUSE = "directories of other sweeps; their finished runs of the same config are linked"
DRY = "check every point and say what is left to run; run and write nothing"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is missing; exit code 1 where a run failed, 2 where nothing can run."""
    own, arguments = split_arguments(argv)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", required=True, help="file with a `sweep`")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--points", nargs="+", help="of the sweep; all without")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", default="", help="a data set that the config knows")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--reuse", nargs="+", type=Path, default=[], help=REUSE)
    parser.add_argument("--dry_run", action="store_true", help=DRY)
    args = parser.parse_args(own)
    with session(args.out, dry=args.dry_run):
        plan = make_plan(args, arguments)
        same = find_finished(plan, args.reuse)
        for (point, seed), run_directory in same.items():
            print(f"{point}/{seed}: the same as {run_directory}")
        if args.dry_run:
            show(plan, {*same})
            return
        save_plan(plan)
        link(plan, same)
        seed = plan.seeds[0]
        resolved = [resolve(plan.flags(point, seed)) for point in plan.points]
        shown = [f"test/{metric}" for metric in SHOWN]
        shown.append(f"valid/kept/{resolved[0].train.metric}")
        write_columns(args.out, [flat_config(c) for c in resolved], shown)
        if old := made_by_other_code(plan):
            print(
                f"note: {len(old)} finished runs were made by another state of the "
                f"code, {old[0].resolve()} first; to make one again, delete its "
                "directory"
            )
        failed = run(plan, args.jobs)
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    if failed:
        sys.exit(1)
    print(
        f"all {len(plan.runs())} runs are finished; "
        f"python -m experiments.collect {args.out} makes the table"
    )


def show(plan: Plan, elsewhere: set[tuple[str, int]]) -> None:
    """Says which runs are finished, here or elsewhere, and which are left."""
    here = {each for each in plan.runs() if is_finished(plan.folder(*each))}
    finished = here | elsewhere
    left = [each for each in plan.runs() if each not in finished]
    left = [(point, seed) for point, seed in left if point not in plan.refused]
    for point in plan.points:
        if seeds := [str(seed) for name, seed in left if name == point]:
            print(f"{point}: to be run with seeds {', '.join(seeds)}")
    print(
        f"dry run: {len(finished)} of {len(plan.runs())} runs are finished, "
        f"{len(left)} can be run; nothing was run or written"
    )


def run(plan: Plan, jobs: int) -> dict[str, str]:
    """Runs what is not finished; what failed, and what it said last."""
    course = _SweepRunner(plan, jobs)
    try:
        with course.bar:
            while course.waiting or course.pool.running:
                course.start()
                time.sleep(POLL)
                course.reap()
                course.show()
    finally:
        course.pool.stop()
    return course.failed


class _SweepRunner:
    """A sweep on its way; see `run`."""

    def __init__(self, plan: Plan, jobs: int):
        self.plan, self.pool, self.jobs = plan, Pool(jobs), jobs
        self.failed: dict[str, str] = {}
        self.took: dict[str, list[float]] = {}  # seconds of the finished runs, by point
        self.asked: dict[str, str] = {}  # fingerprint of the first, by protocol
        self.waiting: list[tuple[str, int]] = []
        for point, seed in plan.runs():
            if is_finished(folder := plan.folder(point, seed)):
                self.count(point, read_results(folder))
            elif point in plan.refused:
                self.failed[f"{point} {seed}"] = plan.refused[point]
            else:
                self.waiting.append((point, seed))
        self._told = set[Path]()
        total = len(plan.runs())
        self.bar = make_bar(total - len(self.waiting), total, "runs")

    def start(self) -> None:
        """Gives every free slot a run whose directory is free too.

        Of the last seed the longest runs come first, so that no slot is idle for long
        at the end.
        """
        if len({seed for _, seed in self.waiting}) == 1:
            self.waiting.sort(key=lambda each: -self.expected(each[0]))
        for each in self.waiting[:]:
            if not self.pool.free:
                return
            folder = self.plan.folder(*each)
            if not is_locked(folder):
                self.waiting.remove(each)
                job = self.plan.job(*each)
                self.pool.start(job)
                self.bar.write(f"{job.name}: started")
            elif folder not in self._told:
                self._told.add(folder)
                self.bar.write(f"{folder}: a run is still in it; waiting for its end")

    def reap(self) -> None:
        """Looks for runs that have ended."""
        for job, code in self.pool.ended():
            point, seed = job.name.rsplit(" ", 1)
            folder = self.plan.folder(point, int(seed))
            if code:
                said = job.last_line()
                self.failed[job.name] = f"exit code {code}: {said} ({job.log})"
                self.bar.write(f"{job.name}: FAILED with exit code {code}")
            else:
                self.bar.write(f"{job.name}: {outcome(folder)}")
                if not self.count(point, read_results(folder)):
                    self.bar.write(
                        f"note: {job.name}: its data are not those of the runs before; "
                        "no table takes both"
                    )
            self.bar.update()

    def count(self, point: str, results: dict[str, Any]) -> bool:
        """Counts a finished run; whether it was asked what those before it were."""
        self.took.setdefault(point, []).append(results["seconds"]["total"])
        asked: str = results["fingerprint"]
        return self.asked.setdefault(self.plan.protocols[point], asked) == asked

    def expected(self, point: str) -> float:
        """Seconds that a run takes: as those of its point, or of any; 0 before any."""
        every = [x for some in self.took.values() for x in some]
        some = self.took.get(point, every)
        return sum(some) / max(len(some), 1)

    def show(self) -> None:
        """What runs, and what is left by what runs of each point took.

        A run that goes on after an interruption is taken for one from its beginning.
        """
        running = [job for job, _ in self.pool.running.values()]
        shown = [f"{job.name} for {job.elapsed:.0f} s" for job in running]
        parts = [f"{len(self.failed)} failed"] if self.failed else []
        if self.took:
            waiting = [self.expected(point) for point, _ in self.waiting]
            rest = [
                self.expected(x.name.rsplit(" ", 1)[0]) - x.elapsed for x in running
            ]
            seconds = seconds_left(waiting, rest, self.jobs)
            left = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
            parts.append(f"about {left} left")
        parts += [f"running {', '.join(shown)}"] if shown else []
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(0)


def seconds_left(
    waiting: Sequence[float], running: Sequence[float], jobs: int
) -> float:
    """Until all runs are done, each slot taking the next one as it gets free.

    Args:
      waiting: what each of these runs will take, in their order.
      running: what each of these still takes; less than zero is taken for none.
      jobs: slots.
    """
    slots = [max(x, 0.0) for x in running] + [0.0] * (jobs - len(running))
    for seconds in waiting:
        slots[slots.index(min(slots))] += seconds
    return max(slots)


def made_by_other_code(plan: Plan) -> list[Path]:
    """Finished runs that were, if only by other comments."""
    folders = [plan.folder(point, seed) for point, seed in plan.runs()]
    return [
        folder
        for folder in folders
        if is_finished(folder) and read_results(folder)["code"] != CODE
    ]


def outcome(folder: Path) -> str:
    """A line about a finished run."""
    results = read_results(folder)
    metric = read_json(folder / "config.json")["train"]["metric"]
    valid, test = (results[split][metric]["value"] for split in ("valid", "test"))
    took = f"{results['seconds']['total']:.0f} s"
    return f"{metric} {valid:.4f} on validation, {test:.4f} on the test, {took}"


if __name__ == "__main__":
    main()
