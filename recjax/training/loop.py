"""The course of a phase: steps, epochs with early stopping, saves, what it leaves."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.common.errors import Stopped, UserError
from recjax.common.param_paths import FlatParams, max_change
from recjax.data.batching.types import Batch
from recjax.evaluation.evaluator import Evaluation
from recjax.evaluation.metrics import MetricValues
from recjax.models.heads import FUSION_WEIGHTS
from recjax.reporting.progress import TrainLogger
from recjax.runtime.signals import NOTHING, STOP, PreemptionSync
from recjax.training.context import Run
from recjax.training.optimizer import group_multipliers
from recjax.training.param_report import change_report
from recjax.training.phase import Phase, make_phase
from recjax.training.train_step import TrainState


@dataclass(frozen=True)
class PhaseResult:
    """What a phase leaves of what it trained, and how that does."""

    trained: FlatParams
    step: int
    epochs: int
    valid: Evaluation
    test: Evaluation


@dataclass
class PhaseProgress:
    """Where a phase stands.

    Attributes:
      epoch: epochs that are done.
      step: steps of the next one that are done.
      best: validation metric, of the state after `best_epoch` epochs.
    """

    epoch: int
    step: int
    best: float
    best_epoch: int


def train_phase(
    r: Run, index: int, config: Any, params: FlatParams, step: int
) -> PhaseResult:
    """Trains one phase and returns the state that it keeps, evaluated.

    Args:
      r: the run.
      index: of the phase among those with epochs.
      config: of the phase, one of `config.train.phases`.
      params: all parameters as they enter it.
      step: global step at its start.
    """
    phase, state = make_phase(r, index, config, params, step)
    state, best, stand = fit(r, phase, state)
    kept = state.result if config.keep == "last" else best
    return finish_phase(r, phase, kept, stand)


def fit(
    r: Run, phase: Phase, state: TrainState
) -> tuple[TrainState, FlatParams, PhaseProgress]:
    """Epochs until patience ends: the last state, the best parameters, the standing.

    Raises:
      Stopped: a signal came; where the phase stands was saved.
      UserError: too many batches were skipped; likewise saved.
    """
    c, say = r.config, r.reporter.log
    iterator, stale = iter(phase.batches), {}
    inside = r.checkpoints.step_checkpoint
    if inside and inside.meta["phase"] == phase.index:
        stand = PhaseProgress(**inside.meta["stand"])
        if found := inside.manifest["arrays"].get("more:stale:vectors_NxD"):
            table = jax.ShapeDtypeStruct(*found, sharding=r.compiler.everywhere)
            stale = {"stale": {"vectors_NxD": table}}
        state, best, stale = r.checkpoints.restore_last(state, stale)
        iterator.set_state(json.loads(inside.meta["iterator"]))
        within = f" and {stand.step} steps" if stand.step else ""
        say(f"resuming after epoch {stand.epoch}{within} of phase {phase.config.name}")
    else:
        start = r.now()
        state, values = validate(r, phase, state)
        value = float(values[c.train.metric].mean())
        best = jax.tree.map(jnp.copy, state.result)
        r.spend_since("train", start)
        say(f"validation {c.train.metric} before the first epoch: {value:.4f}")
        stand = PhaseProgress(epoch=0, step=0, best=value, best_epoch=0)

    course = _PhaseLoop(r, phase, stand, state, best, stale, iterator)
    with contextlib.closing(course.meter), r.signals.defer_signals():
        course.run()
    return course.state, course.best, stand


class _PhaseLoop:
    """A phase on its way; see `fit`."""

    def __init__(
        self,
        r: Run,
        phase: Phase,
        stand: PhaseProgress,
        state: TrainState,
        best: FlatParams,
        stale: Any,
        iterator: Any,
    ):
        self.r, self.phase, self.stand = r, phase, stand
        self.state, self.best, self.stale = state, best, stale
        self.iterator = iterator
        self.watch = PreemptionSync(
            r.signals, r.mesh, r.config.train.checkpoint_seconds
        )
        self.meter = make_train_logger(r, phase, stand)
        self.saved: tuple[int, int] | None = (stand.epoch, stand.step)
        self.since = r.now()  # until then all seconds are in the accounts

    def run(self) -> None:
        """Epochs until the last one or patience ends."""
        r, stand, patience = self.r, self.stand, self.phase.config.patience
        while stand.epoch < self.phase.config.epochs:
            waited = stand.epoch - stand.best_epoch
            if patience and waited >= patience:
                r.reporter.log(
                    f"stopping early: no better {r.config.train.metric} for {waited} "
                    "epochs"
                )
                break
            self.train()
            self.evaluate()
            self.heed()
        self.save()

    def train(self) -> None:
        """The rest of an epoch."""
        self.meter.start_epoch(self.stand.best)
        for state, stale in train_steps(
            self.r,
            self.phase,
            self.state,
            self.iterator,
            self.meter,
            self.watch,
            first=self.stand.step,
            stale=self.stale,
        ):
            self.state, self.stale = state, stale
            self.stand.step += 1
            if self.stand.step < self.phase.batches.steps_per_epoch:
                self.heed()  # the last step's save comes after the validation
        self.meter.flush()
        self.stand.epoch, self.stand.step = self.stand.epoch + 1, 0

    def evaluate(self) -> None:
        """Validates, and keeps the state where it is the best so far."""
        r, stand = self.r, self.stand
        self.state, values = validate(r, self.phase, self.state)
        r.reporter.scalars(
            self.phase.step_of(stand.epoch, 0),
            {f"valid/{m}": float(x.mean()) for m, x in values.items()},
        )
        if (weights := self.state.trainable.get(FUSION_WEIGHTS)) is not None:
            step = self.phase.step_of(stand.epoch, 0)
            named = zip(r.config.head.fusion, np.asarray(weights), strict=True)
            r.reporter.scalars(step, {f"valid/fusion/{k}": float(w) for k, w in named})
        value = float(values[r.config.train.metric].mean())
        if value > stand.best:
            self.best = jax.tree.map(jnp.copy, self.state.result)
            stand.best, stand.best_epoch = value, stand.epoch

    def heed(self) -> None:
        """Saves, or stops, where that was asked for."""
        if self.meter.skipped > (most := self.r.config.train.max_skipped):
            self.save()
            saved = "" if self.r.checkpoints.wait() else "NOT "
            raise UserError(
                f"phase {self.phase.config.name}: {self.meter.skipped} batches were "
                f"skipped, more than train.max_skipped ({most}), the last one at step "
                f"{self.meter.skipped_at}; the state before is {saved}saved. Try a "
                "smaller learning rate in another --workdir"
            )
        if self.meter.asked != NOTHING:
            stop = self.meter.asked == STOP
            self.save()
            if stop:
                raise Stopped(saved=self.r.checkpoints.wait())

    def account(self) -> None:
        """Adds the seconds since the last time to those of training."""
        self.r.spend_since("train", self.since)
        self.since = self.r.now()

    def save(self) -> None:
        """Saves where the phase stands, unless that is saved."""
        r, stand = self.r, self.stand
        self.meter.flush()  # waits for the steps that are on their way
        self.account()
        self.meter.asked = NOTHING
        self.watch.saved()
        if self.saved == (stand.epoch, stand.step):
            return
        self.saved = stand.epoch, stand.step
        step = self.phase.step_of(stand.epoch, stand.step)
        meta: dict[str, Any] = {"phase": self.phase.index, "step": step}
        meta |= {"stand": asdict(stand), **r.reporter.resume_state()}
        meta["iterator"] = json.dumps(_plain(self.iterator.get_state()))
        meta |= {"seconds": r.accounts(), "peak_memory_mib": r.peak_memory()}
        more = self.stale if stand.step else {}  # an epoch begins with a new table
        r.checkpoints.save_last(step, self.state, self.best, more, meta)


def train_steps(
    r: Run,
    phase: Phase,
    state: TrainState,
    iterator: Iterator[Batch],
    meter: TrainLogger,
    watch: PreemptionSync,
    *,
    first: int = 0,
    stale: Any,
) -> Iterator[tuple[TrainState, Any]]:
    """The steps of an epoch from `first` on: the state after each, and the stale table.

    Args:
      r: the run.
      phase: of the run.
      state: before.
      iterator: of training batches.
      meter: receives each step's metrics.
      watch: says what this process asks of the others.
      first: steps of the epoch that are done.
      stale: vectors of the catalogue for the next steps, where negatives are stale.
    """
    refresh = r.config.loss.refresh_steps
    for i in range(first, phase.batches.steps_per_epoch):
        if phase.batches.negatives == "stale" and i % refresh == 0:
            stale = encode_stale(phase, state)
        batch = next(iterator)
        catalogue, placed = phase.place(r, batch)
        inputs = ({**catalogue, **stale}, placed, watch.request(), r.dropout_key)
        state, values = phase.step(state, phase.frozen, *inputs)
        meter.add(values, batch)
        yield state, stale


def encode_stale(phase: Phase, state: TrainState) -> dict[str, Any]:
    """The catalogue by the newest parameters, for the next steps' negatives."""
    params = phase.nested(state.trainable)
    return {"stale": {"vectors_NxD": phase.scorer.encode_catalogue(params)[0]}}


def finish_phase(
    r: Run, phase: Phase, kept: FlatParams, stand: PhaseProgress
) -> PhaseResult:
    """Says what changed and evaluates the parameters that are kept."""
    start, say = r.now(), r.reporter.log
    last = f", epoch {stand.epoch} is kept" if phase.config.keep == "last" else ""
    say(
        f"best validation {r.config.train.metric} {stand.best:.4f} after epoch "
        f"{stand.best_epoch}{last}; train_step was compiled {len(phase.step)} time(s)"
    )
    whole = {**phase.frozen, **kept}
    after = {path: whole[path] for path in phase.params}
    changes = max_change(phase.params, after)
    changed = change_report(changes, phase.opt)
    say(changed)
    r.reporter.text(f"changes/{phase.config.name}", changed)
    nested, data = phase.nested(kept), r.data
    valid, test = r.evaluator.by_model(phase.scorer, nested, data.valid, data.test)
    step = phase.step_of(stand.epoch, 0)
    metric = r.config.train.metric
    values = {f"test/{m}": test.mean(m) for m in test.values}
    r.reporter.scalars(step, {f"valid/kept/{metric}": valid.mean(metric), **values})
    r.spend_since("test", start)
    return PhaseResult(kept, step, stand.epoch, valid, test)


def validate(
    r: Run, phase: Phase, state: TrainState
) -> tuple[TrainState, MetricValues]:
    """Ranks the validation rows; the state has the memory's weights that do best."""
    nested, rows = phase.nested(state.result), r.data.valid
    if FUSION_WEIGHTS not in state.trainable:
        return state, r.evaluator.by_model(phase.scorer, nested, rows)[0].values
    weights_M, values = r.evaluator.tune_fusion_weights(
        phase.scorer, nested, rows, r.config.train.metric
    )

    def weighted(flat: FlatParams) -> FlatParams:
        return {**flat, FUSION_WEIGHTS: r.replicate(weights_M)} if flat else flat

    trainable, average = weighted(state.trainable), weighted(state.average)
    after: TrainState = state.replace(trainable=trainable, average=average)
    return after, values


def make_train_logger(r: Run, phase: Phase, stand: PhaseProgress) -> TrainLogger:
    """Progress bar and scalars of a phase."""
    steps, groups = phase.batches.steps_per_epoch, group_multipliers(phase.opt)

    def rates(n: int) -> dict[str, float]:
        rate = float(phase.opt.schedule(n))
        return {f"optim/lr/{group}": rate * mult for group, mult in groups.items()}

    def users(batch: Batch) -> list[str]:
        assert batch.examples_B is not None
        examples_B = batch.examples_B[batch.examples_B >= 0]
        names = r.data.user_ids[phase.batches.windows.rows.users_R[examples_B]]
        return [str(name) for name in names]

    return TrainLogger(
        r.reporter,
        name=phase.config.name,
        metric=r.config.train.metric,
        total=phase.config.epochs * steps,
        done=stand.epoch * steps + stand.step,
        first_step=phase.first_step,
        log_every=r.config.report.every_steps,
        learning_rates=rates,
        users=users,
        min_spread=r.config.train.min_spread,
    )


def _plain(state: Any) -> Any:
    """A grain iterator's state as JSON values."""
    return json.loads(state.decode()) if isinstance(state, bytes) else state
