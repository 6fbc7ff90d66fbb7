"""What a training phase is made of: the schedule says what is frozen, and the rest."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from recjax.catalogue.arrays import CatalogueArrays
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, count_params, unflatten_params
from recjax.data.batching.sequences import merge_prefixes
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.types import Batch
from recjax.data.batching.windows import MaskedItem, NextItem
from recjax.data.dataset import Examples
from recjax.data.padding import round_up
from recjax.data.text.packing import Items
from recjax.evaluation.model_scorer import ModelScorer
from recjax.losses import LOSSES
from recjax.models.items.text_source import count_frozen_blocks
from recjax.models.layers.graph import make_graph
from recjax.models.recommender import Recommender
from recjax.models.users import BIDIRECTIONAL
from recjax.runtime.compiler import Compiled
from recjax.runtime.mesh import replicated, row_multiple
from recjax.training.context import Run
from recjax.training.optimizer import Optimizer, PhaseRules, make_optimizer
from recjax.training.param_report import full_param_table, param_table
from recjax.training.train_step import STEP_METRICS, LossMonitor, TrainState, train_step


@dataclass(frozen=True)
class Phase:
    """What a phase is made of; nothing in it changes while the phase runs.

    Attributes:
      index: of the phase among those with epochs.
      config: of the phase, one of `config.train.phases`.
      first_step: global step at its start.
      params: all parameters as they enter it.
      frozen: those of them that stay.
      rules: what is frozen, and the multipliers of the others.
      optimizer: the optimizer of the others.
      batches: of training rows.
      catalogue: what the item tower reads of all items.
      candidates: catalogue and items of every batch, where these are all there are.
      scorer: ranks by a parameter state.
      step: the compiled train step.
      refresh_steps: steps between two encodings of the stale table.
    """

    index: int
    config: Any
    first_step: int
    params: FlatParams
    frozen: FlatParams
    rules: PhaseRules
    optimizer: Optimizer
    batches: TrainBatches
    catalogue: CatalogueArrays
    candidates: tuple[Any, Items] | None
    scorer: ModelScorer
    step: Compiled
    refresh_steps: int

    def step_of(self, epoch: int, step: int) -> int:
        """The run's step after so many epochs of the phase and steps of the next."""
        return self.first_step + epoch * self.batches.steps_per_epoch + step

    def place(self, r: Run, batch: Batch) -> tuple[Any, Batch]:
        """What a step reads of the catalogue for a batch, and the batch itself."""
        if self.candidates is not None:
            catalogue, items = self.candidates
        else:
            assert batch.items is not None
            catalogue, items = self.catalogue.take(batch.items)
        placed: Batch = r.shard_batch(batch._replace(items=None, examples_B=None))
        return catalogue, placed._replace(items=items)

    def is_refresh_step(self, step: int) -> bool:
        """Returns whether the stale table is computed before this step of an epoch."""
        return self.batches.negatives.is_stale and step % self.refresh_steps == 0

    def nested(self, trainable: FlatParams) -> dict[str, Any]:
        """All parameters as the model wants them."""
        return unflatten_params({**trainable, **self.frozen})


def make_phase(
    r: Run, index: int, config: Any, params: FlatParams, step: int
) -> tuple[Phase, TrainState]:
    """A phase ready to train, and the state that it begins with.

    The schedule says what is frozen; what is frozen says what to compute once.

    Args:
      r: the run.
      index: of the phase; with the seed it decides the order of batches.
      config: of the phase.
      params: all, by path.
      step: that it begins with.

    Raises:
      UserError: batches, rates or candidates that cannot be.
    """
    c, name, say = r.config, config.name, r.reporter.log
    batches = make_batches(r, config, seed=c.seed + index)
    total = config.epochs * batches.steps_per_epoch
    rules = r.rules[index]
    opt = make_optimizer(c.optim, config, rules, total)
    trainable, frozen = rules.split(params)
    say(f"\nphase {name}: at most {config.epochs} epochs of {c.optim.name}")
    say(param_table(params, rules, config.lr))
    full = full_param_table(params, rules, config.lr)
    r.reporter.text(f"params/{name}", full)
    say(f"{count_params(trainable):,} of {count_params(params):,} parameters trained")

    start = r.timer.start()
    blocks = count_frozen_blocks(r.model.encoder_config, trainable)
    model = r.model.with_frozen_blocks(blocks)
    catalogue = r.catalogue.build(model, params, blocks, batches.negatives)
    batches.packing = catalogue.packing
    graph = candidates = None
    if model.graph_layers:
        users_E, items_E = r.data.train.pairs()
        graph = r.replicate(make_graph(users_E, items_E, r.data.num_items))
    if batches.negatives.needs_whole_catalogue:
        arrays, items = catalogue.take(batches.all_items())
        arrays = {**arrays, "graph": graph} if graph else arrays
        candidates = arrays, items
    r.timer.add_since("prefix", start)

    state = init_state(r, opt, trainable, step, average=config.ema > 0)
    return Phase(
        index=index,
        config=config,
        first_step=step,
        params=params,
        frozen=frozen,
        rules=rules,
        optimizer=opt,
        batches=batches,
        catalogue=catalogue,
        candidates=candidates,
        scorer=ModelScorer(
            model,
            catalogue,
            catalogue.positions_N(),
            r.evaluator.k,
            r.compiler,
            graph,
        ),
        step=make_step(r, model, opt, state, config.ema),
        refresh_steps=c.loss.refresh_steps,
    ), state


def make_batches(r: Run, phase: Any, seed: int) -> TrainBatches:
    """The training batches that the config and its phase ask for."""
    c = r.config
    size, devices = phase.batch_size or c.train.batch_size, r.mesh.shape["data"]
    if size % devices:
        r.reporter.log(
            f"batches of {round_up(size, devices)} users, not {size}: the same number "
            f"on each of {devices} devices"
        )
    windows = make_windows(c, r.data.train)
    if len(windows.examples) < (num_rows := len(r.data.train)):
        r.reporter.log(
            f"{num_rows:,} rows, read as {len(windows.examples):,} sequences"
        )
    return TrainBatches(
        windows,
        batch_size=round_up(size, devices),
        epoch_steps=phase.epoch_steps,
        negatives=phase.negatives or c.loss.negatives,
        logq=c.loss.logq,
        num_items=r.data.num_items,
        held_out_N=r.data.held_out_N,
        num_negatives=c.loss.num_negatives,
        multiple=row_multiple(r.mesh),
        like=c.eval.like_threshold if c.loss.name == "rating" else None,
        seed=seed,
    )


def make_windows(c: Any, rows: Examples) -> NextItem:
    """What the user tower is asked: the next item, or those that are hidden from it.

    Raises:
      UserError: there is nothing before any target.
    """
    options = {
        "windows": c.data.windows,
        "shuffle_ties": c.data.shuffle_ties,
        "reverse": c.data.reverse,
    }
    if not rows.lengths().any():
        raise UserError("data.split: no training row has a history to learn from")
    if c.data.windows == "all":
        rows = merge_prefixes(rows, c.data.history_length)
    if c.user_tower.name in BIDIRECTIONAL:
        share = c.user_tower.mask_share
        return MaskedItem(rows, c.data.history_length, share=share, **options)
    return NextItem(rows, c.data.history_length, **options)


def init_state(
    r: Run, opt: Optimizer, trainable: FlatParams, step: int, *, average: bool
) -> TrainState:
    """The state at the start of a phase; optimizer state placed like the weights."""
    trainable = jax.tree.map(jnp.copy, trainable)  # the step gives its memory away
    opt_state = jax.tree.map(
        lambda x: x if isinstance(x.sharding, NamedSharding) else r.replicate(x),
        opt.tx.init(trainable),
    )
    mean = jax.tree.map(jnp.copy, trainable) if average else {}
    monitor = LossMonitor(np.float32(0), np.int32(0), np.int32(0))
    step_, monitor = r.replicate((np.int32(step), monitor))
    return TrainState(step_, trainable, mean, opt_state, monitor)


def make_step(
    r: Run, model: Recommender, opt: Optimizer, state: TrainState, ema: float
) -> Compiled:
    """The compiled train step; state comes back placed as it went in."""
    loss = LOSSES[r.config.loss.name](r.config.loss, r.data.num_items)

    def step(state: TrainState, *inputs: Any) -> Any:
        return train_step(
            state,
            *inputs,
            model=model,
            loss=loss,
            tx=opt.tx,
            ema=ema,
            spike=r.config.train.spike,
        )

    placed = jax.tree.map(lambda x: x.sharding, state)
    metrics = dict.fromkeys(STEP_METRICS, replicated(r.mesh))
    return r.compiler("train_step", step, (0,), (placed, metrics))
