"""Builds, trains and evaluates one phase of a run."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, max_change
from recjax.common.text import visible
from recjax.data.batching.types import Batch
from recjax.evaluation.evaluator import Evaluation
from recjax.reporting.progress import TrainLogger
from recjax.runtime.signals import PreemptionSync
from recjax.training.callbacks import RunCallbacks
from recjax.training.context import Run
from recjax.training.loop import PhaseProgress, train_phase
from recjax.training.make_phase import make_phase
from recjax.training.param_report import change_report, change_summary
from recjax.training.phase import Phase


@dataclass(frozen=True)
class PhaseResult:
    """The parameters that a phase keeps, and their evaluation.

    Attributes:
      trained: parameters by path; frozen ones are not among them.
      step: global step at the end of the phase.
      epochs: epochs that were trained.
      kept_epoch: number of the epoch whose parameters are kept; 0 for the start.
    """

    trained: FlatParams
    step: int
    epochs: int
    kept_epoch: int
    valid: Evaluation
    test: Evaluation


def complete_phase(
    run: Run, index: int, config: Any, params: FlatParams, first_step: int
) -> PhaseResult:
    """Trains a phase, from its newest checkpoint if it has one, and evaluates it.

    Args:
      run: the run.
      index: number of the phase among those with epochs.
      config: config of the phase, one of `config.train.phases`.
      params: all parameters as they enter the phase.
      first_step: global step at its start.

    Raises:
      Stopped: a signal came; the state was saved.
      UserError: too many batches were skipped; the state was saved.
    """
    phase, state = make_phase(run, index, config, params, first_step)
    callbacks = RunCallbacks(run, phase)
    loop = callbacks.start_or_resume(state)
    logger = make_train_logger(run, phase, loop.progress)
    sync = PreemptionSync(run.signals, run.mesh, run.config.train.checkpoint_seconds)
    # Signals wait for the end of a step, where the state can be saved.
    with contextlib.closing(logger), run.signals.defer_signals():
        kept = train_phase(phase, loop, callbacks, logger, sync)
    return evaluate_phase(run, phase, params, kept, loop.progress)


def evaluate_phase(
    run: Run,
    phase: Phase,
    params: FlatParams,
    kept: FlatParams,
    progress: PhaseProgress,
) -> PhaseResult:
    """Logs what training changed and evaluates the parameters that are kept.

    Args:
      run: the run.
      phase: the trained phase.
      params: all parameters as they entered it.
      kept: the trainable parameters that it keeps.
      progress: the progress of the phase.

    Raises:
      UserError: a parameter that is kept is not finite.
    """
    start, log, metric = run.timer.start(), run.reporter.log, run.config.train.metric
    keep_last = phase.config.keep == "last"
    last = f", epoch {progress.epoch} is kept" if keep_last else ""
    kept_epoch = progress.epoch if keep_last else progress.best_epoch
    # Log which epoch is kept, and what training changed.
    log(
        f"best validation {metric} {progress.best:.4f} after epoch "
        f"{progress.best_epoch}{last}; train_step was compiled {len(phase.step)} "
        "time(s)"
    )
    if not kept_epoch:
        log(
            f"warning: phase {phase.config.name} keeps nothing (best epoch 0 of "
            f"{progress.epoch}): no epoch improves validation {metric}, so the "
            "parameters from before the phase are kept; try another lr, more epochs, "
            "or fewer trained parameters"
        )
    # The report lists parameters in the order of `params`.
    after = {path: kept.get(path, x) for path, x in params.items()}
    change_of = max_change(params, after)
    if not_finite := [path for path, x in change_of.items() if x == math.inf]:
        raise UserError(
            f"phase {phase.config.name}: {not_finite[0]} is not finite after training; "
            "try a smaller learning rate in another --workdir"
        )
    rules = run.rules[phase.index]
    log(change_summary(change_of, rules))
    full_report = change_report(change_of, rules)
    run.reporter.text(f"changes/{phase.config.name}", full_report)
    # The test split is read once per phase, after everything is decided.
    valid, test = run.evaluator.by_model(
        phase.scorer, phase.nested(kept), run.data.valid, run.data.test
    )
    step = phase.step_of(progress.epoch, 0)
    scalars = {f"test/{name}": test.mean(name) for name in test.values}
    run.reporter.scalars(step, {f"valid/kept/{metric}": valid.mean(metric), **scalars})
    run.timer.add_since("test", start)
    return PhaseResult(kept, step, progress.epoch, kept_epoch, valid, test)


def make_train_logger(run: Run, phase: Phase, progress: PhaseProgress) -> TrainLogger:
    """Builds the progress bar and the log of training scalars of a phase."""
    steps_per_epoch = phase.batches.steps_per_epoch

    def user_names(batch: Batch) -> list[str]:
        assert batch.examples_B is not None
        examples_B = batch.examples_B[batch.examples_B >= 0]
        users_B = phase.batches.windows.examples.users_R[examples_B]
        return [visible(str(name)) for name in run.data.user_ids[users_B]]

    return TrainLogger(
        output=run.reporter,
        name=phase.config.name,
        metric=run.config.train.metric,
        total=phase.config.epochs * steps_per_epoch,
        step=progress.epoch * steps_per_epoch + progress.step,
        first_step=phase.first_step,
        log_every=run.config.report.every_steps,
        learning_rates=phase.learning_rates,
        user_names=user_names,
        min_spread=run.config.train.min_spread,
    )
