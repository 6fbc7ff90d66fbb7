"""Searches a config's space for what is best on validation, with Optuna.

    python -m experiments.search --config=configs/searches/towers.py --out=runs/search

The config file has `search(trial)`, which returns changes by flat key. Trial N is the
run OUT/N; once five trials have run to their end, one whose best validation so far is
below the median of what these had after as many is ended. The same command goes on
after an interruption, and makes the same trials as without; a greater `--trials` adds
some. A trial whose values no run takes is counted as failed; so is a run that fails.
Two failed runs in a row end the search; so does, at once, a wrong key, or a trial whose
protocol or data are not those of the others. The test is not looked at. Writes
search.md; what follows `--` is passed on to every run.
"""

import argparse
import contextlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from experiments.sweeping.command import (
    POLL,
    check_same_arguments,
    make_bar,
    session,
    split_arguments,
)
from experiments.sweeping.load import (
    PLAN,
    STUDY,
    check_arguments,
    load_from,
    read_json,
    resolve,
)
from experiments.sweeping.plan import protocol_of
from experiments.sweeping.pool import Job, Pool
from experiments.tabling.table import line
from recjax.common.config import describe_changes
from recjax.common.errors import STOPPED, UserError
from recjax.common.files import atomic_files
from recjax.config.validate import check_config
from recjax.runtime.locks import is_locked

try:
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.trial import FrozenTrial, Trial, TrialState
    from sqlalchemy.exc import SQLAlchemyError  # what optuna keeps trials with
except ModuleNotFoundError:
    print("error: needs optuna: pip install -e '.[experiments]'", file=sys.stderr)
    sys.exit(2)

WARM_UP, STARTUP = 3, 5  # validations, and whole trials, before any is ended
BASE, FINGERPRINT = "base config", "fingerprint"  # what a study remembers
CODE = "exit code"  # of a trial's run
Search = Callable[[Any], dict[str, Any]]  # of a Trial


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is missing; exit code 1 where a trial failed, 2 where that ended it."""
    own, arguments = split_arguments(argv)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", required=True, help="file with a `search`")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of runs and of the search")
    args = parser.parse_args(own)
    for flag in ("seed", "trials"):
        if (value := getattr(args, flag)) < 0:
            parser.error(f"--{flag}: {value} is not at least 0")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with session(args.out), storage(args.out / STUDY):
        study = _Study(args, arguments)
        try:
            study.run()
        finally:
            text = study.page()
            with atomic_files(args.out / "search.md") as (path,):
                path.write_text(text + "\n", encoding="utf-8")
    print(text)
    if failed := study.ended(TrialState.FAIL):
        for trial in failed:
            why = trial.user_attrs.get("why", "")
            print(f"failed: trial {trial.number}: {why}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turns what databases raise into one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as e:
        reason = " ".join(str(e.__cause__ or e).split())[:200]
        raise UserError(f"{path}: {reason}; mend it, or choose another --out") from None


class _Study:
    """A search on its way."""

    def __init__(self, args: argparse.Namespace, arguments: list[str]):
        self.args, self.arguments = args, arguments
        check_arguments(arguments)
        if (args.out / PLAN).exists():
            raise UserError(f"--out {args.out}: holds a sweep; choose another")
        self.search: Search = load_from(args.config, "search")
        base = resolve([f"--config={args.config}", *arguments])
        check_config(base)
        self.metric, self.asked = base.train.metric, protocol_of(base)
        self.study = optuna.create_study(
            storage=f"sqlite:///{(args.out / STUDY).resolve()}",
            study_name="search",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(STARTUP, WARM_UP),
        )
        before = self.study.user_attrs
        same = {"config": args.config, "seed": args.seed, "arguments": arguments}
        check_same_arguments(before, same, args.out)
        values = json.loads(base.to_json())
        if changes := describe_changes(before.get(BASE, values), values):
            raise UserError(
                f"--out {args.out}: was begun with another {BASE} ({changes}); choose "
                "another --out"
            )
        for key, value in {**same, BASE: values}.items():
            self.study.set_user_attr(key, value)

    def ended(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in those states."""
        return self.study.get_trials(deepcopy=False, states=states)

    def run(self) -> None:
        """Trials until there are as many as asked for."""
        pool = Pool(1)
        done = self.ended(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        bar = make_bar(len(done), max(self.args.trials, len(done)), "trials")
        try:
            with bar:
                while bar.n < self.args.trials:
                    trial = self.next()
                    state, value = self.follow(trial, pool, bar)
                    self.study.tell(
                        trial.number,
                        value if state == TrialState.COMPLETE else None,
                        state,
                    )
                    said = "" if value is None else f", {self.metric} {value:.4f}"
                    bar.write(f"trial {trial.number}: {state.name.lower()}{said}")
                    bar.update()
        finally:
            pool.stop()

    def next(self) -> Trial:
        """The trial that was interrupted, or a new one."""
        number = len(self.study.get_trials(deepcopy=False))
        if interrupted := self.ended(TrialState.RUNNING):
            number = interrupted[0].number
        # Of its own for each trial, so that an interruption changes nothing.
        seed = np.random.SeedSequence([self.args.seed, number]).generate_state(1)[0]
        self.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        if interrupted:  # what it has drawn stays
            return Trial(self.study, interrupted[0]._trial_id)
        return self.study.ask()

    def follow(
        self, trial: Trial, pool: Pool, bar: Any
    ) -> tuple[TrialState, float | None]:
        """Runs a trial until it ends or is seen to be bad.

        Raises:
          UserError: see `judge`, `config` and `refuse_other_data`.
        """
        folder = self.args.out / str(trial.number)
        job, config = self.job(trial, folder), self.config(trial)
        try:
            check_config(config)
        except UserError as e:
            trial.set_user_attr("why", str(e))
            return TrialState.FAIL, None
        while is_locked(folder):  # an interrupted run is saving
            time.sleep(POLL)
        pool.start(job)
        reported = 0
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        while True:
            ended = pool.ended()
            values = read_validations(folder, self.metric)
            for value in values[reported:]:
                reported += 1
                if reported not in known:
                    trial.report(value, reported)
                if trial.should_prune():  # whether the run has ended or not
                    pool.stop()
                    trial.set_user_attr(CODE, 0)
                    return TrialState.PRUNED, value
            if ended:
                break
            bar.set_postfix_str(f"{job.name} for {job.elapsed:.0f} s", refresh=False)
            bar.update(0)
            time.sleep(POLL)
        ((_, code),) = ended
        if code:
            self.judge(trial, job, code)
            return TrialState.FAIL, None
        trial.set_user_attr(CODE, code)
        results = read_json(folder / "results.json")
        self.refuse_other_data(trial, results["fingerprint"])
        return TrialState.COMPLETE, results["valid"][self.metric]["value"]

    def judge(self, trial: Trial, job: Job, code: int) -> None:
        """Notes why a run failed, where others may do better.

        Raises:
          UserError: they would fail, too; or the run was stopped, or killed for the
            first time, and is tried again by the next search.
        """
        why = f"exit code {code}: {job.last_line()} ({job.log})"
        if code == STOPPED or (code < 0 and not trial.user_attrs.get("killed")):
            trial.set_user_attr("killed", code < 0)
            raise UserError(f"{job.name}: {why}; the same command tries it again")
        ran = self.ended(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        codes = [x.user_attrs[CODE] for x in ran if CODE in x.user_attrs]
        again = bool(codes and codes[-1])  # a draw that was refused has none
        trial.set_user_attr(CODE, code)
        if code > 2 or again or not self.ended(TrialState.COMPLETE):
            self.give_up(trial, why)
        trial.set_user_attr("why", why)

    def give_up(self, trial: Trial, why: str) -> NoReturn:
        """Ends the search with a trial that failed."""
        trial.set_user_attr("why", why)
        self.study.tell(trial.number, state=TrialState.FAIL)
        raise UserError(f"trial {trial.number}: {why}") from None

    def job(self, trial: Trial, folder: Path) -> Job:
        """The run of a trial.

        Raises:
          UserError: the config's `search` raises something.
        """
        try:
            changes = self.search(trial)
        except Exception as e:  # a config file may raise anything
            self.give_up(trial, f"{self.args.config}: search: {e}")
        trial.set_user_attr("flags", flags := self.flags(changes))
        command = [sys.executable, "-m", "recjax.main", *flags]
        log = self.args.out / "logs" / f"{trial.number}.txt"
        return Job(f"trial {trial.number}", [*command, f"--workdir={folder}"], log)

    def config(self, trial: Trial) -> Any:
        """What a trial's flags make.

        Raises:
          UserError: nothing, which no other draw mends; or it asks something else.
        """
        try:
            config = resolve(trial.user_attrs["flags"])
        except UserError as e:
            self.give_up(trial, str(e))
        asked = protocol_of(config)
        both = {**self.asked, **asked}
        if other := [k for k in both if asked.get(k) != self.asked.get(k)]:
            self.give_up(trial, f"{', '.join(other)}: what is asked cannot be searched")
        return config

    def refuse_other_data(self, trial: Trial, fingerprint: str) -> None:
        """Raises UserError where a run's data are not those of the runs before."""
        before = self.study.user_attrs.get(FINGERPRINT, fingerprint)
        if before != fingerprint:
            self.give_up(trial, "data are not as they were; choose another --out")
        self.study.set_user_attr(FINGERPRINT, fingerprint)

    def flags(self, changes: dict[str, Any]) -> list[str]:
        """Those that make a trial's config."""
        made = [f"--config={self.args.config}", f"--config.seed={self.args.seed}"]
        made += self.arguments
        return [*made, *(f"--config.{key}={x}" for key, x in changes.items())]

    def page(self) -> str:
        """The trials, best first, and the command of the best."""
        done = self.ended(TrialState.COMPLETE, TrialState.PRUNED)
        done = sorted(done, key=lambda t: (t.state.value, -(t.value or 0.0), t.number))
        names = list(dict.fromkeys(name for trial in done for name in trial.params))
        head = ["trial", f"valid {self.metric}", "validations", *names]
        lines = [line(head), "|" + "---:|" * len(head)]
        for trial in done:
            shown = [
                f"{x:.4g}" if isinstance(x, float) else str(x)
                for x in (trial.params.get(name, "") for name in names)
            ]
            early = " (ended early)" if trial.state == TrialState.PRUNED else ""
            cells = [f"{trial.number}{early}", f"{trial.value:.4f}"]
            lines.append(line([*cells, str(len(trial.intermediate_values)), *shown]))
        if not done:
            return "no trial has a result"
        best = done[0].user_attrs["flags"]
        command = shlex.join(["python", "-m", "recjax.main", *best, "--workdir=DIR"])
        return "\n".join([*lines, "", "The first of them:", "", f"    {command}"])


def read_validations(folder: Path, metric: str) -> list[float]:
    """The metric after every epoch so far."""
    path, found = folder / "metrics.jsonl", []
    if path.exists():
        *whole, _ = path.read_text(encoding="utf-8").split("\n")  # the last may be half
        for text in whole:
            value = json.loads(text).get(f"valid/{metric}")
            found += [] if value is None else [value]
    return found


if __name__ == "__main__":
    main()
