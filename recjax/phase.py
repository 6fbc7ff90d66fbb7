"""One training phase: frozen prefix, epochs with early stopping, the best state."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from recjax import losses, optim, report, sharding, summaries, trees
from recjax.catalogue import CatalogueArrays, make_catalogue
from recjax.data.batches import Batch, Items, TrainBatches, round_up
from recjax.errors import UserError
from recjax.evaluate import Evaluation, ModelScorer
from recjax.models.prefix import count_frozen_blocks
from recjax.models.recommender import Recommender
from recjax.run import Run
from recjax.steps import Compiled, TrainState, train_step


@dataclass(frozen=True)
class Outcome:
    """What a phase leaves: its best parameters and how they do."""

    params: trees.Flat
    step: int
    epochs: int
    trained: int
    valid: Evaluation
    test: Evaluation


@dataclass(frozen=True)
class Phase:
    """What a phase is made of; nothing in it changes while the phase runs.

    Attributes:
      index: of the phase among those with epochs.
      config: of the phase, one of `config.train.phases`.
      first_step: global step at its start.
      params: all parameters as they enter it.
      frozen: those of them that stay.
      opt: the optimizer of the others.
      batches: of training rows.
      catalogue: what the item tower reads of all items.
      candidates: catalogue and items of every batch, where these are all there are.
      scorer: ranks by a parameter state.
      step: the compiled train step.
    """

    index: int
    config: Any
    first_step: int
    params: trees.Flat
    frozen: trees.Flat
    opt: optim.Optim
    batches: TrainBatches
    catalogue: CatalogueArrays
    candidates: tuple[Any, Items] | None
    scorer: ModelScorer
    step: Compiled

    def nested(self, trainable: trees.Flat) -> dict[str, Any]:
        """All parameters as the model wants them."""
        return trees.unflatten({**trainable, **self.frozen})


@dataclass
class Standing:
    """Where a phase stands after so many epochs."""

    epoch: int
    best: float
    best_epoch: int


def run_phase(
    r: Run, index: int, config: Any, params: trees.Flat, step: int
) -> Outcome:
    """Trains one phase and returns its best state, evaluated.

    Args:
      r: the run.
      index: of the phase among those with epochs.
      config: of the phase, one of `config.train.phases`.
      params: all parameters as they enter it.
      step: global step at its start.
    """
    phase, state = set_up(r, index, config, params, step)
    state, best, stand = fit(r, phase, state)
    return conclude(r, phase, state, best, stand)


def set_up(
    r: Run, index: int, config: Any, params: trees.Flat, step: int
) -> tuple[Phase, TrainState]:
    """The schedule says what is frozen; what is frozen says what to compute once."""
    c, name, say = r.config, config.name, r.reporter.say
    batches = make_batches(r, seed=c.seed + index)
    total = config.epochs * batches.steps_per_epoch
    opt = optim.make(c.optim, config, list(params), total)
    trainable, frozen = optim.split(params, opt)
    say(f"\nphase {name}: at most {config.epochs} epochs of {c.optim.name}")
    say(summaries.param_table(params, opt, config.lr))
    full = summaries.full_param_table(params, opt, config.lr)
    r.reporter.text(f"params/{name}", full)
    say(f"{trees.count(trainable):,} of {trees.count(params):,} parameters trained")

    start = r.now()
    blocks = count_frozen_blocks(r.model, trainable)
    model = r.model.clone(frozen_blocks=blocks)
    catalogue = make_catalogue(r, model, params, blocks)
    batches.packing = catalogue.packing
    candidates = None
    if c.loss.negatives == "all":
        candidates = catalogue.take(batches.all_items())
    r.spend_since("prefix", start)

    state = init_state(r, opt, trainable, step, average=config.ema > 0)
    return Phase(
        index=index,
        config=config,
        first_step=step,
        params=params,
        frozen=frozen,
        opt=opt,
        batches=batches,
        catalogue=catalogue,
        candidates=candidates,
        scorer=ModelScorer(
            model, catalogue.chunks(), r.data.num_items, r.evaluator.k, r.compiler
        ),
        step=make_step(r, model, opt, state, config.ema),
    ), state


def fit(
    r: Run, phase: Phase, state: TrainState
) -> tuple[TrainState, trees.Flat, Standing]:
    """Epochs until patience ends: the last state, the best parameters, the standing."""
    c, say, metric = r.config, r.reporter.say, r.config.train.metric
    iterator = iter(phase.batches)
    meta = r.checkpoints.last_meta()
    if meta and meta["phase"] == phase.index:
        stand = Standing(**meta["stand"])
        state, best = r.checkpoints.restore_last(state)
        iterator.set_state(json.loads(meta["iterator"]))
        say(f"resuming after epoch {stand.epoch} of phase {phase.config.name}")
    else:
        best = jax.tree.map(jnp.copy, state.result)
        start = r.now()
        value = validate(r, phase, state.result).mean(metric)
        r.spend_since("train", start)
        say(f"validation {metric} before the first epoch: {value:.4f}")
        stand = Standing(epoch=0, best=value, best_epoch=0)

    saved_at, saved_epoch = time.perf_counter(), stand.epoch
    key = r.put_whole(jax.random.key(c.seed + 1))
    meter = make_meter(r, phase, stand)

    def save() -> None:
        where: dict[str, Any] = {"phase": phase.index, "step": int(state.step)}
        where |= {"stand": asdict(stand), "records": r.reporter.records}
        where["iterator"] = json.dumps(_plain(iterator.get_state()))
        where["seconds"] = r.accounts()
        r.checkpoints.save_last(int(state.step), state, best, where)

    while stand.epoch < phase.config.epochs:
        waited = stand.epoch - stand.best_epoch
        if phase.config.patience and waited >= phase.config.patience:
            say(f"stopping early: no better {metric} for {waited} epochs")
            break
        start = r.now()
        meter.start_epoch(stand.best)
        state = train_epoch(r, phase, state, iterator, key, meter)
        meter.end_epoch()
        stand.epoch += 1
        if not math.isfinite(meter.loss):
            meter.close()
            raise UserError(
                f"phase {phase.config.name}: the loss is {meter.loss} in epoch "
                f"{stand.epoch}; try a smaller learning rate"
            )
        evaluation = validate(r, phase, state.result)
        r.reporter.scalars(
            int(state.step),
            {f"valid/{m}": evaluation.mean(m) for m in evaluation.values},
        )
        if (value := evaluation.mean(metric)) > stand.best:
            best = jax.tree.map(jnp.copy, state.result)
            stand.best, stand.best_epoch = value, stand.epoch
        r.spend_since("train", start)
        if time.perf_counter() - saved_at >= c.train.checkpoint_seconds:
            save()
            saved_at, saved_epoch = time.perf_counter(), stand.epoch
    if stand.epoch > saved_epoch:
        save()
    meter.close()
    return state, best, stand


def train_epoch(
    r: Run,
    phase: Phase,
    state: TrainState,
    iterator: Iterator[Batch],
    key: jax.Array,
    meter: report.Meter,
) -> TrainState:
    """One pass over the training windows; returns the state after it."""
    loss = r.config.loss
    stale: dict[str, Any] = {}
    for i in range(phase.batches.steps_per_epoch):
        if loss.negatives == "stale" and i % loss.refresh_steps == 0:
            params = phase.nested(state.trainable)
            vectors_NxD = phase.scorer.encode_catalogue(params)[0]
            stale = {"stale": {"vectors_NxD": vectors_NxD}}
        batch = next(iterator)
        users = int(batch.mask_BxH.any(axis=1).sum())
        if phase.candidates is not None:
            catalogue, items = phase.candidates
        else:
            assert batch.items is not None
            catalogue, items = phase.catalogue.take(batch.items)
        batch = r.put(batch._replace(items=None))._replace(items=items)
        catalogue = {**catalogue, **stale}
        state, values = phase.step(state, phase.frozen, catalogue, batch, key)
        meter.add(values, users)
    return state


def conclude(
    r: Run, phase: Phase, state: TrainState, best: trees.Flat, stand: Standing
) -> Outcome:
    """Says what changed and evaluates the best parameters."""
    start, say = r.now(), r.reporter.say
    say(
        f"best validation {r.config.train.metric} {stand.best:.4f} after epoch "
        f"{stand.best_epoch}; train_step was compiled {len(phase.step)} time(s)"
    )
    whole = {**phase.frozen, **best}
    after = {path: whole[path] for path in phase.params}
    changes = trees.max_change(phase.params, after)
    changed = summaries.change_report(changes, phase.opt)
    say(changed)
    r.reporter.text(f"changes/{phase.config.name}", changed)
    nested, data = phase.nested(best), r.data
    valid, test = r.evaluator.by_model(phase.scorer, nested, data.valid, data.test)
    step = int(state.step)
    r.reporter.scalars(step, {f"test/{m}": test.mean(m) for m in test.values})
    r.spend_since("test", start)
    return Outcome(after, step, stand.epoch, trees.count(best), valid, test)


def validate(r: Run, phase: Phase, trainable: trees.Flat) -> Evaluation:
    """Ranks the validation rows."""
    nested = phase.nested(trainable)
    return r.evaluator.by_model(phase.scorer, nested, r.data.valid)[0]


def make_meter(r: Run, phase: Phase, stand: Standing) -> report.Meter:
    """Progress bar and scalars of a phase."""
    steps, groups = phase.batches.steps_per_epoch, optim.groups(phase.opt)

    def rates(n: int) -> dict[str, float]:
        rate = float(phase.opt.schedule(n))
        return {f"optim/lr/{group}": rate * mult for group, mult in groups.items()}

    return report.Meter(
        r.reporter,
        name=phase.config.name,
        metric=r.config.train.metric,
        total=phase.config.epochs * steps,
        done=stand.epoch * steps,
        first_step=phase.first_step,
        every=r.config.report.every_steps,
        rates=rates,
    )


def make_batches(r: Run, seed: int) -> TrainBatches:
    """The training batches that the config asks for."""
    c = r.config
    return TrainBatches(
        r.data.train,
        batch_size=round_up(c.train.batch_size, r.mesh.shape["data"]),
        history_length=c.data.history_length,
        windows=c.data.windows,
        negatives=c.loss.negatives,
        logq=c.loss.logq,
        num_items=r.data.num_items,
        num_negatives=c.loss.num_negatives,
        multiple=sharding.row_multiple(r.mesh),
        shuffle_ties=c.data.shuffle_ties,
        reverse=c.data.reverse,
        seed=seed,
    )


def init_state(
    r: Run, opt: optim.Optim, trainable: trees.Flat, step: int, *, average: bool
) -> TrainState:
    """The state at the start of a phase; optimizer state placed like the weights."""
    trainable = jax.tree.map(jnp.copy, trainable)  # the step gives its memory away
    opt_state = jax.tree.map(
        lambda x: x if isinstance(x.sharding, NamedSharding) else r.put_whole(x),
        opt.tx.init(trainable),
    )
    mean = jax.tree.map(jnp.copy, trainable) if average else {}
    return TrainState(r.put_whole(jnp.int32(step)), trainable, mean, opt_state)


def make_step(
    r: Run, model: Recommender, opt: optim.Optim, state: TrainState, ema: float
) -> Compiled:
    """The compiled train step; state comes back placed as it went in."""
    loss = losses.LOSSES[r.config.loss.name](r.config.loss)

    def step(state: TrainState, *inputs: Any) -> Any:
        return train_step(state, *inputs, model=model, loss=loss, tx=opt.tx, ema=ema)

    placed = jax.tree.map(lambda x: x.sharding, state)
    metrics = dict.fromkeys(
        ("loss", "grad_norm", "targets"), sharding.replicated(r.mesh)
    )
    return r.compiler("train_step", step, (0,), (placed, metrics))


def _plain(state: Any) -> Any:
    """A grain iterator's state as JSON values."""
    return json.loads(state.decode()) if isinstance(state, bytes) else state
