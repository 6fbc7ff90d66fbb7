"""The training loop of one phase: steps, validation, early stopping, checkpoints."""

import contextlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from recjax.common.errors import Stopped, UserError
from recjax.common.param_paths import FlatParams, max_change
from recjax.data.batching.types import Batch
from recjax.evaluation.evaluator import Evaluation
from recjax.evaluation.metrics import MetricValues
from recjax.models.heads import FUSION_WEIGHTS
from recjax.reporting.progress import TrainLogger
from recjax.runtime.signals import SAVE, STOP, PreemptionSync
from recjax.training.context import Run
from recjax.training.param_report import change_report
from recjax.training.phase import Phase, make_phase
from recjax.training.resume import (
    LoopState,
    PhaseProgress,
    copy_params,
    restore_loop,
    save_loop,
)
from recjax.training.train_step import TrainState


@dataclass(frozen=True)
class PhaseResult:
    """The parameters that a phase keeps, and their evaluation.

    Attributes:
      trained: parameters by path; frozen ones are not among them.
      step: global step at the end of the phase.
      epochs: epochs that were trained.
    """

    trained: FlatParams
    step: int
    epochs: int
    valid: Evaluation
    test: Evaluation


def train_phase(
    run: Run, index: int, config: Any, params: FlatParams, first_step: int
) -> PhaseResult:
    """Trains one phase and evaluates the parameters that it keeps.

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
    # A resumed phase continues from its newest checkpoint; a new one is validated
    # before its first step, so that training can only improve what is kept.
    loop = restore_loop(run, phase, state) or start_loop(run, phase, state)
    progress, steps_per_epoch = loop.progress, phase.batches.steps_per_epoch
    logger = make_train_logger(run, phase, progress)
    sync = PreemptionSync(run.signals, run.mesh, run.config.train.checkpoint_seconds)
    with contextlib.closing(logger), run.signals.defer_signals():
        while not is_finished(run, phase, progress):
            logger.start_epoch(progress.best)
            while progress.step < steps_per_epoch:
                # Stale negatives: encode the catalogue again from time to time.
                if phase.is_refresh_step(progress.step):
                    loop.stale = encode_stale(phase, loop.state)
                # The device computes this step while the metrics of the step before
                # are read and the next batch is made.
                batch = next(loop.batches)
                loop.state, metrics = run_step(
                    run, phase, loop.state, loop.stale, batch
                )
                logger.add(metrics, batch)
                progress.step += 1
                # After the last step of an epoch, requests wait for the validation.
                if progress.step < steps_per_epoch:
                    handle_requests(run, phase, loop, logger, sync)
            logger.flush()
            progress.epoch += 1
            progress.step = 0
            # Keep the state with the best validation metric.
            values = validate(run, phase, loop)
            log_validation(run, phase, loop, values)
            keep_best(run, loop, values)
            handle_requests(run, phase, loop, logger, sync)
        save(run, phase, loop, logger, sync)
    kept = loop.state.result if config.keep == "last" else loop.best
    return finish_phase(run, phase, kept, progress)


def run_step(
    run: Run, phase: Phase, state: TrainState, stale: dict[str, Any], batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Dispatches one train step; returns the state and the metrics, being computed."""
    catalogue, placed = phase.place(run, batch)
    inputs = {**catalogue, **stale}, placed, run.dropout_key
    after: tuple[TrainState, dict[str, jax.Array]] = phase.step(
        state, phase.frozen, *inputs
    )
    return after


def encode_stale(phase: Phase, state: TrainState) -> dict[str, Any]:
    """Encodes the catalogue by the newest parameters, as negatives of later steps."""
    params = phase.nested(state.trainable)
    return {"stale": {"vectors_NxD": phase.scorer.encode_catalogue(params)[0]}}


def start_loop(run: Run, phase: Phase, state: TrainState) -> LoopState:
    """Starts a phase at its first step, with the validation before any training."""
    start = run.timer.start()
    progress = PhaseProgress(epoch=0, step=0, best=0.0, best_epoch=0)
    loop = LoopState(state, {}, {}, iter(phase.batches), progress, start)
    values = validate(run, phase, loop)
    metric = run.config.train.metric
    progress.best = float(values[metric].mean())
    loop.best = copy_params(loop.state.result)
    run.timer.add_since("train", start)
    loop.timed = run.timer.start()
    loop.saved = progress.epoch, progress.step  # nothing was trained yet
    run.reporter.log(f"validation {metric} before the first epoch: {progress.best:.4f}")
    return loop


def is_finished(run: Run, phase: Phase, progress: PhaseProgress) -> bool:
    """Returns whether the phase has no epoch left, or stops early, which is logged."""
    waited, patience = progress.epoch - progress.best_epoch, phase.config.patience
    if progress.epoch >= phase.config.epochs:
        return True
    if not patience or waited < patience:
        return False
    run.reporter.log(
        f"stopping early: no better {run.config.train.metric} for {waited} epochs"
    )
    return True


def validate(run: Run, phase: Phase, loop: LoopState) -> MetricValues:
    """Ranks the validation examples; with score fusion, sets the best weights first."""
    params, examples = phase.nested(loop.state.result), run.data.valid
    if FUSION_WEIGHTS not in loop.state.trainable:
        return run.evaluator.by_model(phase.scorer, params, examples)[0].values
    # The weights of the baselines are chosen by validation, not by a gradient.
    weights_M, values = run.evaluator.tune_fusion_weights(
        phase.scorer, params, examples, run.config.train.metric
    )
    state = loop.state
    # Two copies: the train step reuses the memory of each of its inputs.
    trainable = {**state.trainable, FUSION_WEIGHTS: run.replicate(weights_M)}
    average = state.average
    if average:
        average = {**average, FUSION_WEIGHTS: run.replicate(weights_M)}
    loop.state = state.replace(trainable=trainable, average=average)
    return values


def log_validation(
    run: Run, phase: Phase, loop: LoopState, values: MetricValues
) -> None:
    """Logs the validation metrics, and the weights of a score fusion."""
    step = phase.step_of(loop.progress.epoch, 0)
    run.reporter.scalars(
        step, {f"valid/{m}": float(x.mean()) for m, x in values.items()}
    )
    if (weights_M := loop.state.trainable.get(FUSION_WEIGHTS)) is not None:
        named = zip(run.config.head.fusion, np.asarray(weights_M), strict=True)
        run.reporter.scalars(
            step, {f"valid/fusion/{name}": float(w) for name, w in named}
        )


def keep_best(run: Run, loop: LoopState, values: MetricValues) -> None:
    """Keeps a copy of the parameters if their validation metric is the best so far."""
    value = float(values[run.config.train.metric].mean())
    if value > loop.progress.best:
        loop.best = copy_params(loop.state.result)
        loop.progress.best = value
        loop.progress.best_epoch = loop.progress.epoch


def handle_requests(
    run: Run, phase: Phase, loop: LoopState, logger: TrainLogger, sync: PreemptionSync
) -> None:
    """Handles pending save and stop requests; aborts after too many skipped batches."""
    most = run.config.train.max_skipped
    if logger.skipped > most:
        save(run, phase, loop, logger, sync)
        saved = "" if run.checkpoints.wait() else "NOT "
        raise UserError(
            f"phase {phase.config.name}: {logger.skipped} batches were skipped, more "
            f"than train.max_skipped ({most}), the last one at step "
            f"{logger.skipped_at}; the state before is {saved}saved. Try a smaller "
            "learning rate in another --workdir"
        )
    # Every process of the run gets the same answer after the same step.
    request = sync.agree()
    if request in (SAVE, STOP):
        save(run, phase, loop, logger, sync)
    if request == STOP:
        raise Stopped(saved=run.checkpoints.wait())


def save(
    run: Run, phase: Phase, loop: LoopState, logger: TrainLogger, sync: PreemptionSync
) -> None:
    """Saves the state of the loop in the background, unless it is saved already."""
    logger.flush()  # waits for the steps that are being computed
    sync.reset()
    save_loop(run, phase, loop)


def finish_phase(
    run: Run, phase: Phase, kept: FlatParams, progress: PhaseProgress
) -> PhaseResult:
    """Logs what training changed and evaluates the parameters that are kept."""
    start, log, metric = run.timer.start(), run.reporter.log, run.config.train.metric
    last = f", epoch {progress.epoch} is kept" if phase.config.keep == "last" else ""
    log(
        f"best validation {metric} {progress.best:.4f} after epoch "
        f"{progress.best_epoch}{last}; train_step was compiled {len(phase.step)} "
        "time(s)"
    )
    params = {**phase.frozen, **kept}
    # In the order of the initial parameters, which is that of the report.
    after = {path: params[path] for path in phase.params}
    changes = change_report(max_change(phase.params, after), phase.rules)
    log(changes)
    run.reporter.text(f"changes/{phase.config.name}", changes)
    valid, test = run.evaluator.by_model(
        phase.scorer, phase.nested(kept), run.data.valid, run.data.test
    )
    step = phase.step_of(progress.epoch, 0)
    scalars = {f"test/{name}": test.mean(name) for name in test.values}
    run.reporter.scalars(step, {f"valid/kept/{metric}": valid.mean(metric), **scalars})
    run.timer.add_since("test", start)
    return PhaseResult(kept, step, progress.epoch, valid, test)


def make_train_logger(run: Run, phase: Phase, progress: PhaseProgress) -> TrainLogger:
    """Builds the progress bar and the log of training scalars of a phase."""
    steps_per_epoch = phase.batches.steps_per_epoch
    multipliers = phase.rules.group_multipliers()

    def learning_rates(step: int) -> dict[str, float]:
        rate = float(phase.optimizer.schedule(step))
        return {f"optim/lr/{group}": rate * m for group, m in multipliers.items()}

    def user_names(batch: Batch) -> list[str]:
        assert batch.examples_B is not None
        examples_B = batch.examples_B[batch.examples_B >= 0]
        users_B = phase.batches.windows.examples.users_R[examples_B]
        return [str(name) for name in run.data.user_ids[users_B]]

    return TrainLogger(
        run.reporter,
        name=phase.config.name,
        metric=run.config.train.metric,
        total=phase.config.epochs * steps_per_epoch,
        done=progress.epoch * steps_per_epoch + progress.step,
        first_step=phase.first_step,
        log_every=run.config.report.every_steps,
        learning_rates=learning_rates,
        user_names=user_names,
        min_spread=run.config.train.min_spread,
    )
