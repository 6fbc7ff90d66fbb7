"""The state of a phase's loop, and how it is saved and restored."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recjax.common.param_paths import FlatParams
from recjax.runtime.timer import StartTime
from recjax.training.context import Run
from recjax.training.phase import Phase
from recjax.training.train_step import TrainState

STALE_TABLE = "more:stale:vectors_NxD"  # its name among a checkpoint's arrays


@dataclass
class PhaseProgress:
    """How far a phase has come.

    Attributes:
      epoch: completed epochs.
      step: completed steps of the next epoch.
      best: best validation metric so far.
      best_epoch: completed epochs when it was reached.
    """

    epoch: int
    step: int
    best: float
    best_epoch: int


@dataclass
class LoopState:
    """Everything that changes while a phase runs.

    Attributes:
      state: the train state.
      best: trainable parameters with the best validation metric.
      stale: encoded catalogue for the next steps; empty unless negatives are stale.
      batches: grain iterator over training batches.
      progress: how far the phase has come.
      timed: time up to which the seconds are counted already.
      saved: epoch and step of the newest checkpoint.
    """

    state: TrainState
    best: FlatParams
    stale: dict[str, Any]
    batches: Any
    progress: PhaseProgress
    timed: StartTime
    saved: tuple[int, int] | None = None


def copy_params(params: FlatParams) -> FlatParams:
    """Copies parameters, because the train step reuses the memory of its inputs."""
    copied: FlatParams = jax.tree.map(jnp.copy, params)
    return copied


def restore_loop(run: Run, phase: Phase, state: TrainState) -> LoopState | None:
    """Restores the loop from the newest checkpoint of the phase; None without one.

    Args:
      run: the run.
      phase: the phase.
      state: a new state, which says where each restored array is placed.
    """
    checkpoint = run.checkpoints.step_checkpoint
    if checkpoint is None or checkpoint.meta["phase"] != phase.index:
        return None
    stale: dict[str, Any] = {}
    if found := checkpoint.manifest["arrays"].get(STALE_TABLE):
        table = jax.ShapeDtypeStruct(*found, sharding=run.compiler.replicated)
        stale = {"stale": {"vectors_NxD": table}}
    tree = {"state": state, "best": state.trainable, "more": stale}
    tree = run.checkpoints.restore_last(tree)
    batches = iter(phase.batches)
    # The iterator continues with the batch after the last one that was trained on.
    batches.set_state(json.loads(checkpoint.meta["iterator"]))
    progress = PhaseProgress(**checkpoint.meta["progress"])
    within = f" and {progress.step} steps" if progress.step else ""
    run.reporter.log(
        f"resuming after epoch {progress.epoch}{within} of phase {phase.config.name}"
    )
    saved = progress.epoch, progress.step
    return LoopState(
        state=tree["state"],
        best=tree["best"],
        stale=tree["more"],
        batches=batches,
        progress=progress,
        timed=run.timer.start(),
        saved=saved,
    )


def save_loop(run: Run, phase: Phase, loop: LoopState) -> None:
    """Saves the loop in the background, unless this step is saved already."""
    run.timer.add_since("train", loop.timed)
    loop.timed = run.timer.start()
    progress = loop.progress
    if loop.saved == (progress.epoch, progress.step):
        return
    loop.saved = progress.epoch, progress.step
    step = phase.step_of(progress.epoch, progress.step)
    meta = {
        "phase": phase.index,
        "step": step,
        "progress": asdict(progress),
        "iterator": json.dumps(_as_json(loop.batches.get_state())),
        **run.reporter.resume_state(),
        "seconds": run.timer.totals(),
        "peak_memory_mib": run.peak_memory(),
    }
    # Between two epochs the table is not needed: an epoch starts with a new one.
    stale = loop.stale if progress.step else {}
    tree = {"state": loop.state, "best": loop.best, "more": stale}
    run.checkpoints.save_last(step, tree, meta)


def _as_json(state: Any) -> Any:
    """Returns the state of a grain iterator as JSON values."""
    return json.loads(state.decode()) if isinstance(state, bytes) else state
