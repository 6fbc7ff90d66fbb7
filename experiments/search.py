"""Searches the hyperparameters of a config with Optuna, by the validation metric.

    python -m experiments.search --config=configs/searches/towers.py --out=runs/search

The config file defines `search(trial)`, which returns config changes by flat key. Trial
N is the run OUT/N. After five complete trials, a trial is pruned if its best validation
metric so far is below the median of theirs after as many validations. The same command
resumes after an interruption, and makes the same trials as an uninterrupted search; a
greater `--trials` adds trials. A trial has failed if its config is invalid or its run
fails. The search ends after two failed runs in a row, and at once after an unknown key,
or a trial with another protocol or other data. It never looks at the test. Writes
search.md. Arguments after `--` are passed to every run.
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
    path_argument,
    session,
    split_arguments,
)
from experiments.sweeping.load import (
    PLAN,
    STUDY,
    check_arguments,
    load_function,
    resolve,
)
from experiments.sweeping.plan import changed_keys, protocol_of
from experiments.sweeping.pool import NO_MODEL, Job, Pool
from experiments.tabling.table import markdown_line
from recjax.common.config import describe_changes
from recjax.common.errors import STOPPED, UserError
from recjax.common.files import atomic_files, read_json
from recjax.config.validate import check_config
from recjax.runtime.locks import is_locked

try:
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.trial import FrozenTrial, Trial, TrialState
    from sqlalchemy.exc import SQLAlchemyError  # optuna stores its trials with it
except ModuleNotFoundError:
    print(
        "error: optuna is missing; run pip install -e '.[experiments]'", file=sys.stderr
    )
    sys.exit(2)

STARTUP_TRIALS = 5  # complete trials before any pruning
WARMUP_VALIDATIONS = 3  # validations of a trial before it can be pruned
BASE, FINGERPRINT = "base config", "fingerprint"  # attributes of the stored study
EXIT_CODE = "exit code"  # an attribute of a stored trial
Search = Callable[[Any], dict[str, Any]]  # maps a Trial to config changes


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the missing trials; exit code 1 if one failed, 2 after an error."""
    own, arguments = split_arguments(argv)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", required=True, help="config file with a `search`")
    parser.add_argument(
        "--out", required=True, type=path_argument, help="directory of the runs"
    )
    parser.add_argument("--trials", type=int, default=20, help="number of trials")
    parser.add_argument("--seed", type=int, default=0, help="seed of runs and search")
    args = parser.parse_args(own)
    for flag in ("seed", "trials"):
        if (value := getattr(args, flag)) < 0:
            parser.error(f"--{flag}: {value} has to be at least 0")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with session(args.out), storage_errors(args.out / STUDY):
        study = _Study(args, arguments)
        try:
            study.run()
        finally:
            text = study.page()
            with atomic_files(args.out / "search.md") as (path,):
                path.write_text(text + "\n", encoding="utf-8")
    print(text)
    if failed := study.trials_in(TrialState.FAIL):
        for trial in failed:
            why = trial.user_attrs.get("why", "")
            print(f"failed: trial {trial.number}: {why}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the errors of the study's database inside the block into a UserError."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as e:
        reason = " ".join(str(e.__cause__ or e).split())[:200]
        raise UserError(
            f"{path}: {reason}; repair the file, or choose another --out"
        ) from None


class _Study:
    """A search that is running.

    Args:
      args: parsed command line.
      arguments: flags that all trials have in common.

    Raises:
      UserError: the config is invalid, or the directory holds another search.
    """

    def __init__(self, args: argparse.Namespace, arguments: list[str]):
        self.args, self.arguments = args, arguments
        check_arguments(arguments)
        if (args.out / PLAN).exists():
            raise UserError(f"--out {args.out}: holds a sweep; choose another")
        self.search: Search = load_function(args.config, "search")
        base = resolve([f"--config={args.config}", *arguments])
        check_config(base)
        self.metric, self.protocol = base.train.metric, protocol_of(base)
        self.study = optuna.create_study(
            storage=f"sqlite:///{(args.out / STUDY).resolve()}",
            study_name="search",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_VALIDATIONS),
        )
        before = self.study.user_attrs
        same = {"config": args.config, "seed": args.seed, "arguments": arguments}
        check_same_arguments(before, same, args.out)
        values = json.loads(base.to_json())
        if changes := describe_changes(before.get(BASE, values), values):
            raise UserError(
                f"--out {args.out}: was started with another {BASE} ({changes}); "
                "choose another --out"
            )
        for key, value in {**same, BASE: values}.items():
            self.study.set_user_attr(key, value)

    def trials_in(self, *states: TrialState) -> list[FrozenTrial]:
        """Returns the trials in one of these states."""
        return self.study.get_trials(deepcopy=False, states=states)

    def run(self) -> None:
        """Runs trials until there are as many as requested."""
        pool = Pool(1)
        done = self.trials_in(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        bar = make_bar(len(done), max(self.args.trials, len(done)), "trials")
        try:
            with bar:
                while bar.n < self.args.trials:
                    trial = self.next_trial()
                    state, value = self.follow(trial, pool, bar)
                    self.study.tell(
                        trial.number,
                        value if state == TrialState.COMPLETE else None,
                        state,
                    )
                    shown = "" if value is None else f", {self.metric} {value:.4f}"
                    bar.write(f"trial {trial.number}: {state.name.lower()}{shown}")
                    bar.update()
        finally:
            pool.stop()

    def next_trial(self) -> Trial:
        """Returns the trial that was interrupted, or a new one."""
        number = len(self.study.get_trials(deepcopy=False))
        if interrupted := self.trials_in(TrialState.RUNNING):
            number = interrupted[0].number
        # A sampler for each trial, so that a resumed search samples the same values.
        seed = np.random.SeedSequence([self.args.seed, number]).generate_state(1)[0]
        self.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        if interrupted:  # keeps its sampled values
            return Trial(self.study, interrupted[0]._trial_id)
        return self.study.ask()

    def follow(
        self, trial: Trial, pool: Pool, bar: Any
    ) -> tuple[TrialState, float | None]:
        """Runs a trial until it ends or is pruned.

        Returns:
          Its state and its validation metric, which is None for a failed trial.

        Raises:
          UserError: see `handle_failure`, `config` and `check_same_data`.
        """
        folder = self.args.out / str(trial.number)
        job, config = self.job(trial, folder), self.config(trial)
        try:
            check_config(config)
        except UserError as e:
            trial.set_user_attr("why", str(e))
            return TrialState.FAIL, None
        while is_locked(folder):  # an interrupted run is still saving
            time.sleep(POLL)
        pool.start(job)
        reported = 0  # number of validations
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        while True:
            ended = pool.ended()
            values = read_validations(folder, self.metric)
            for value in values[reported:]:
                reported += 1
                if reported not in known:  # a resumed trial has reported some
                    trial.report(value, reported)
                # Even if the run has just ended, so that a search can be repeated.
                if trial.should_prune():
                    pool.stop()
                    trial.set_user_attr(EXIT_CODE, 0)
                    return TrialState.PRUNED, value
            if ended:
                break
            bar.set_postfix_str(f"{job.name} for {job.elapsed:.0f} s", refresh=False)
            bar.update(0)
            time.sleep(POLL)
        ((_, code),) = ended
        if code:
            self.handle_failure(trial, job, code)
            return TrialState.FAIL, None
        trial.set_user_attr(EXIT_CODE, code)
        results = read_json(folder / "results.json")
        self.check_same_data(trial, results["fingerprint"])
        return TrialState.COMPLETE, results["valid"][self.metric]["value"]

    def handle_failure(self, trial: Trial, job: Job, code: int) -> None:
        """Records why a run failed, if other trials may still succeed.

        Raises:
          UserError: other trials would fail too; or the run was stopped, or killed for
            the first time, so that the next search repeats it.
        """
        why = f"exit code {code}: {job.last_line()} ({job.log})"
        # A negative code is the number of the signal that killed the run.
        if code == STOPPED or (code < 0 and not trial.user_attrs.get("killed")):
            trial.set_user_attr("killed", code < 0)
            raise UserError(f"{job.name}: {why}; the same command repeats it")
        ran = self.trials_in(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        codes = [x.user_attrs[EXIT_CODE] for x in ran if EXIT_CODE in x.user_attrs]
        # A trial that was refused before its run has no exit code, and is ignored.
        again = bool(codes and codes[-1])
        trial.set_user_attr(EXIT_CODE, code)
        if code > 2 or again or not self.trials_in(TrialState.COMPLETE):
            self.give_up(trial, why)
        trial.set_user_attr("why", why)

    def give_up(self, trial: Trial, why: str) -> NoReturn:
        """Marks a trial as failed and ends the search."""
        trial.set_user_attr("why", why)
        self.study.tell(trial.number, state=TrialState.FAIL)
        raise UserError(f"trial {trial.number}: {why}") from None

    def job(self, trial: Trial, folder: Path) -> Job:
        """Samples the config of a trial, and returns its command.

        Raises:
          UserError: the config's `search` raises an exception.
        """
        try:
            changes = self.search(trial)
        except Exception as e:  # a config file may raise anything
            self.give_up(trial, f"{self.args.config}: search: {e}")
        flags = [
            f"--config={self.args.config}",
            f"--config.seed={self.args.seed}",
            *self.arguments,
            *(f"--config.{key}={value}" for key, value in changes.items()),
        ]
        trial.set_user_attr("flags", flags)
        command = [sys.executable, "-m", "recjax.main", flags[0], NO_MODEL, *flags[1:]]
        log = self.args.out / "logs" / f"{trial.number}.txt"
        return Job(f"trial {trial.number}", [*command, f"--workdir={folder}"], log)

    def config(self, trial: Trial) -> Any:
        """Returns the config of a trial.

        Raises:
          UserError: the flags are invalid for all trials, or change the protocol.
        """
        try:
            config = resolve(trial.user_attrs["flags"])
        except UserError as e:
            self.give_up(trial, str(e))
        if other := changed_keys(protocol_of(config), self.protocol):
            keys = ", ".join(other)
            self.give_up(trial, f"{keys}: a search cannot change the protocol")
        return config

    def check_same_data(self, trial: Trial, fingerprint: str) -> None:
        """Raises UserError if the data of a run differ from those of earlier trials."""
        before = self.study.user_attrs.get(FINGERPRINT, fingerprint)
        if before != fingerprint:
            self.give_up(
                trial,
                "the data differ from those of earlier trials; choose another --out",
            )
        self.study.set_user_attr(FINGERPRINT, fingerprint)

    def page(self) -> str:
        """Returns search.md: the trials, best first, and the command of the best."""
        done = self.trials_in(TrialState.COMPLETE, TrialState.PRUNED)
        done = sorted(done, key=lambda t: (t.state.value, -(t.value or 0.0), t.number))
        names = list(dict.fromkeys(name for trial in done for name in trial.params))
        head = ["trial", f"valid {self.metric}", "validations", *names]
        lines = [markdown_line(head), "|" + "---:|" * len(head)]
        for trial in done:
            shown = [
                f"{x:.4g}" if isinstance(x, float) else str(x)
                for x in (trial.params.get(name, "") for name in names)
            ]
            pruned = " (pruned)" if trial.state == TrialState.PRUNED else ""
            cells = [f"{trial.number}{pruned}", f"{trial.value:.4f}"]
            lines.append(
                markdown_line([*cells, str(len(trial.intermediate_values)), *shown])
            )
        if not done:
            return "no trial has a result"
        best = done[0].user_attrs["flags"]
        command = shlex.join(["python", "-m", "recjax.main", *best, "--workdir=DIR"])
        return "\n".join(
            [*lines, "", "The command of the first trial:", "", f"    {command}"]
        )


def read_validations(folder: Path, metric: str) -> list[float]:
    """Returns the validation metric after each epoch so far."""
    path, tag = folder / "metrics.jsonl", f"valid/{metric}"
    if not path.exists():
        return []
    # The last line may be incomplete while the run is writing it.
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    return [record[tag] for record in map(json.loads, lines) if tag in record]


if __name__ == "__main__":
    main()
