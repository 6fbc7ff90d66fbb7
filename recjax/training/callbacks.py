"""Validation, checkpoints and the log of a phase, called by its loop."""

import json
from dataclasses import asdict
from typing import Any

import jax

from recjax.evaluation.metrics import MetricValues
from recjax.evaluation.results import tuned_values
from recjax.evaluation.selection import make_selection
from recjax.models.heads import TUNED
from recjax.runtime.mesh import replicate
from recjax.training.context import Run
from recjax.training.loop import LoopState, PhaseProgress, copy_params
from recjax.training.phase import Phase
from recjax.training.train_step import TrainState

STALE_TABLE = "more:stale:vectors_NxD"  # the stale table's name in a checkpoint


class RunCallbacks:
    """The `PhaseCallbacks` of a run; also starts or resumes the loop of a phase."""

    def __init__(self, run: Run, phase: Phase):
        self.run = run
        self.phase = phase
        self.log = run.reporter.log
        self.selection = make_selection(run.config, run.data)
        self._timed = run.timer.start()  # the seconds before are counted already
        self._saved: tuple[int, int] | None = None  # epoch and step of the newest save

    def start_or_resume(self, state: TrainState) -> LoopState:
        """Returns the loop at the newest checkpoint of the phase, or at its first step.

        Args:
          state: a new state, which says where each restored array is placed.
        """
        return self._resume(state) or self.start(state)

    def start(self, state: TrainState) -> LoopState:
        """Returns the loop at the first step, after a validation.

        The validation makes sure that training can only improve what is kept.
        """
        start = self.run.timer.start()
        loop = LoopState(state, {}, {}, iter(self.phase.batches), PhaseProgress())
        loop.progress.best = self.selection(self._rank_validation(loop))
        loop.best = copy_params(loop.state.result)
        self.run.timer.add_since("train", start)
        self._timed = self.run.timer.start()
        self._saved = 0, 0  # nothing was trained yet
        self.log(
            f"validation {self.selection.metric} before the first epoch: "
            f"{loop.progress.best:.4f}"
        )
        return loop

    def _resume(self, state: TrainState) -> LoopState | None:
        checkpoint = self.run.checkpoints.step_checkpoint
        if checkpoint is None or checkpoint.meta["phase"] != self.phase.index:
            return None
        stale: dict[str, Any] = {}
        if found := checkpoint.manifest["arrays"].get(STALE_TABLE):
            sharding = self.run.compiler.replicated
            table = jax.ShapeDtypeStruct(*found, sharding=sharding)
            stale = {"stale": {"vectors_NxD": table}}
        tree = {"state": state, "best": state.trainable, "more": stale}
        tree = self.run.checkpoints.restore_last(tree)
        batches = iter(self.phase.batches)
        # The iterator continues with the batch after the last one that was trained on.
        batches.set_state(json.loads(checkpoint.meta["iterator"]))
        progress = PhaseProgress(**checkpoint.meta["progress"])
        self._timed = self.run.timer.start()
        self._saved = progress.epoch, progress.step
        within = f" and {progress.step} steps" if progress.step else ""
        name = self.phase.config.name
        self.log(f"resuming after epoch {progress.epoch}{within} of phase {name}")
        return LoopState(tree["state"], tree["best"], tree["more"], batches, progress)

    def validate(self, loop: LoopState) -> float:
        """Logs the validation metrics; returns the one that selects the best epoch."""
        values = self._rank_validation(loop)
        scalars = {f"valid/{name}": float(x.mean()) for name, x in values.items()}
        by_group = self.selection.by_group(values)
        scalars |= {
            f"valid/{name}/{self.selection.metric}": x for name, x in by_group.items()
        }
        step = self.phase.step_of(loop.progress.epoch, 0)
        self.run.reporter.scalars(step, scalars)
        tuned = tuned_values(self.run.config, loop.state.result)
        scalars = {
            f"valid/{key}/{name}": x
            for key, named in tuned.items()
            for name, x in named.items()
        }
        if scalars:
            self.run.reporter.scalars(step, scalars)
        return self.selection(values)

    def _rank_validation(self, loop: LoopState) -> MetricValues:
        """Ranks the validation examples, and first tunes what validation chooses."""
        evaluator, scorer = self.run.evaluator, self.phase.scorer
        params, examples = loop.state.result, self.run.data.valid
        paths = [path for path in TUNED if path in params]
        if not paths:
            nested = self.phase.nested(params)
            return evaluator.by_model(scorer, nested, examples)[0].values
        tuned, values = evaluator.tune_scores(
            scorer, {**self.phase.frozen, **params}, paths, examples, self.selection
        )
        mesh = self.run.mesh

        def with_tuned(flat: Any) -> Any:
            # A copy for each: the train step reuses the memory of all its inputs.
            return flat and {
                **flat,
                **{p: replicate(x, mesh) for p, x in tuned.items()},
            }

        loop.state = loop.state.replace(
            trainable=with_tuned(loop.state.trainable),
            average=with_tuned(loop.state.average),
        )
        return values

    def save(self, loop: LoopState) -> None:
        """Saves the loop in the background, unless this step is saved already."""
        self.run.timer.add_since("train", self._timed)
        self._timed = self.run.timer.start()
        progress = loop.progress
        if self._saved == (progress.epoch, progress.step):
            return
        self._saved = progress.epoch, progress.step
        iterator = loop.batches.get_state()
        if isinstance(iterator, bytes):
            iterator = json.loads(iterator.decode())
        step = self.phase.step_of(progress.epoch, progress.step)
        meta = {
            "phase": self.phase.index,
            "step": step,
            "progress": asdict(progress),
            "iterator": json.dumps(iterator),
            **self.run.resume_metadata(),
        }
        # Between two epochs the table is not needed: an epoch starts with a new one.
        stale = loop.stale if progress.step else {}
        tree = {"state": loop.state, "best": loop.best, "more": stale}
        self.run.checkpoints.save_last(step, tree, meta)

    def wait(self) -> bool:
        """Waits for the newest save; returns whether it succeeded."""
        return self.run.checkpoints.wait()
