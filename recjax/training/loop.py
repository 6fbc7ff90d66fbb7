"""The training loop of one phase: steps, validation, early stopping, checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from recjax.common.errors import Stopped, UserError
from recjax.common.param_paths import FlatParams
from recjax.reporting.progress import TrainLogger
from recjax.runtime.signals import SAVE, STOP, PreemptionSync
from recjax.training.phase import Phase
from recjax.training.train_step import TrainState


@dataclass
class PhaseProgress:
    """The progress of a phase.

    Attributes:
      epoch: completed epochs.
      step: completed steps of the next epoch.
      best: best validation metric so far.
      best_epoch: completed epochs when it was reached.
    """

    epoch: int = 0
    step: int = 0
    best: float = 0.0
    best_epoch: int = 0


@dataclass
class LoopState:
    """Everything that changes while a phase runs.

    Attributes:
      state: the newest train state.
      best: trainable parameters with the best validation metric.
      stale: encoded catalogue for the next steps; empty unless negatives are stale.
      batches: grain iterator over training batches.
      progress: the progress of the phase.
    """

    state: TrainState
    best: FlatParams
    stale: dict[str, Any]
    batches: Any
    progress: PhaseProgress


class PhaseCallbacks(Protocol):
    """The validation, the checkpoints and the log, which the run provides."""

    def log(self, text: str) -> None:
        """Prints a line."""

    def validate(self, loop: LoopState) -> float:
        """Logs the validation metrics; returns the one that selects the best epoch."""

    def save(self, loop: LoopState) -> None:
        """Saves the loop in the background, unless this step is saved already."""

    def wait(self) -> bool:
        """Waits for the newest save; returns whether it succeeded."""


def train_phase(
    phase: Phase,
    loop: LoopState,
    callbacks: PhaseCallbacks,
    logger: TrainLogger,
    sync: PreemptionSync,
) -> FlatParams:
    """Trains one phase to its end; returns the trainable parameters that it keeps.

    Args:
      phase: the parts of the phase, which do not change while it runs.
      loop: the start of the phase, or a restored state; it is changed in place.
      callbacks: validation, checkpoints and the log.
      logger: progress bar and training scalars.
      sync: save and stop requests, the same in all processes.

    Raises:
      Stopped: a signal came; the state was saved.
      UserError: too many batches, or all, were skipped; the state was saved.
    """
    progress, steps_per_epoch = loop.progress, phase.batches.steps_per_epoch
    while not is_finished(phase, progress, callbacks.log):
        logger.start_epoch(progress.best)
        while progress.step < steps_per_epoch:
            # Stale negatives: encode the catalogue again every `refresh_steps` steps.
            if phase.is_refresh_step(progress.step):
                loop.stale = phase.encode_stale(loop.state)
            # The device computes this step while the next batch is made and, unless
            # steps wait for each other, the metrics of the step before are read.
            batch = next(loop.batches)
            if phase.synchronous:
                logger.flush()
            loop.state, metrics = phase.run_step(loop.state, loop.stale, batch)
            logger.add(metrics, batch)
            progress.step += 1
            # After the last step of an epoch, requests wait for the validation.
            if progress.step < steps_per_epoch:
                handle_requests(phase, loop, callbacks, logger, sync)
        logger.flush()
        progress.epoch += 1
        progress.step = 0
        # Keep the state with the best validation metric.
        value = callbacks.validate(loop)
        if value > progress.best:
            loop.best = copy_params(loop.state.result)
            progress.best = value
            progress.best_epoch = progress.epoch
        handle_requests(phase, loop, callbacks, logger, sync)
    save(loop, callbacks, logger, sync)
    if 0 < progress.epoch * steps_per_epoch <= logger.skipped:
        raise UserError(
            f"phase {phase.config.name}: all {logger.skipped} batches were skipped, so "
            "nothing was trained. Try a smaller learning rate in another --workdir"
        )
    return loop.state.result if phase.config.keep == "last" else loop.best


def is_finished(
    phase: Phase, progress: PhaseProgress, log: Callable[[str], None]
) -> bool:
    """Returns whether the phase is over; logs a line if it stops early."""
    waited, patience = progress.epoch - progress.best_epoch, phase.config.patience
    if progress.epoch >= phase.config.epochs:
        return True
    if not patience or waited < patience:
        return False
    log(f"stopping early: no better {phase.settings.metric} for {waited} epochs")
    return True


def handle_requests(
    phase: Phase,
    loop: LoopState,
    callbacks: PhaseCallbacks,
    logger: TrainLogger,
    sync: PreemptionSync,
) -> None:
    """Handles pending save and stop requests; aborts after too many skipped batches."""
    limit = phase.settings.max_skipped
    if logger.skipped > limit:
        save(loop, callbacks, logger, sync)
        saved = "" if callbacks.wait() else "NOT "
        raise UserError(
            f"phase {phase.config.name}: {logger.skipped} batches were skipped, more "
            f"than train.max_skipped ({limit}), the last one at step "
            f"{logger.skipped_at}; the newest state is {saved}saved. Try a smaller "
            "learning rate in another --workdir"
        )
    # Every process of the run gets the same answer after the same step.
    request = sync.agree()
    if request in (SAVE, STOP):
        save(loop, callbacks, logger, sync)
    if request == STOP:
        raise Stopped(saved=callbacks.wait())


def save(
    loop: LoopState,
    callbacks: PhaseCallbacks,
    logger: TrainLogger,
    sync: PreemptionSync,
) -> None:
    """Saves the loop in the background, and restarts the clock of the next save."""
    logger.flush()  # waits for the steps that are being computed
    sync.reset()
    callbacks.save(loop)


def copy_params(params: FlatParams) -> FlatParams:
    """Copies parameters, because the train step reuses the memory of its inputs."""
    return jax.tree.map(jnp.copy, params)
