"""Builds a training phase: what is frozen, what is trained, and on which batches."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from recjax.catalogue.arrays import CatalogueArrays
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, count_params
from recjax.data.batching.augmentation import TRANSFORMATIONS, Augmentation
from recjax.data.batching.sequences import merge_prefixes
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.types import Batch
from recjax.data.batching.windows import MaskedItem, NextItem
from recjax.data.dataset import Examples, count_events
from recjax.data.padding import round_up
from recjax.data.text.packing import Items
from recjax.evaluation.model_scorer import ModelScorer
from recjax.evaluation.subgroups import event_group
from recjax.losses import LOSSES, RATING, learns_likes
from recjax.models.items.text_source import count_frozen_blocks
from recjax.models.layers.graph import make_graph
from recjax.models.recommender import Recommender
from recjax.models.users import BIDIRECTIONAL
from recjax.runtime.compiler import Compiled
from recjax.runtime.mesh import replicate, replicated, row_multiple, shard_batch
from recjax.training.context import Run
from recjax.training.loop import copy_params
from recjax.training.optimizer import Optimizer, PhaseRules, make_optimizer
from recjax.training.param_report import full_param_table, param_summary
from recjax.training.phase import Phase
from recjax.training.train_step import LossMonitor, TrainState, train_step


def make_phase(
    run: Run, index: int, config: Any, params: FlatParams, first_step: int
) -> tuple[Phase, TrainState]:
    """Builds a phase that is ready to train, and the state that it starts from.

    The rules of the phase decide what is frozen, and thus what is computed only once.

    Args:
      run: the run.
      index: number of the phase; with the seed it decides the order of batches.
      config: config of the phase.
      params: all parameters by path.
      first_step: global step at its start.

    Raises:
      UserError: no example has a history, or the frozen prefix is too large.
    """
    batches = make_batches(run, config, seed=run.config.seed + index)
    rules = run.rules[index]
    steps = config.epochs * batches.steps_per_epoch
    optimizer = make_optimizer(run.config.optim, config, rules, steps)
    trainable, frozen = rules.split(params)
    log_params(run, config, rules, params)

    # The leading frozen blocks of the encoder run once over the catalogue, not in every
    # step; the model of this phase starts after them.
    start = run.timer.start()
    blocks = count_frozen_blocks(run.model.encoder_config, trainable)
    model = run.model.with_text(frozen_blocks=blocks)
    catalogue = run.catalogue.build(model, params, blocks, batches.negatives)
    batches.packing = catalogue.packing
    candidates = None
    graph = training_graph(run)
    # What a step reads besides the arrays of the item sources.
    extra: dict[str, Any] = {"graph": graph} if graph else {}
    if run.categories_N is not None:
        extra["categories"] = replicate({"category_N": run.categories_N}, run.mesh)
    if batches.negatives.needs_whole_catalogue:
        # Every step reads the same candidates, so they are placed once.
        arrays, items = catalogue.take(batches.all_items())
        candidates = arrays, items
    run.timer.add_since("prefix", start)

    state = init_state(
        run.mesh, optimizer, trainable, first_step, average=config.ema > 0
    )
    scorer = ModelScorer(
        model,
        catalogue,
        catalogue.positions_N(),
        run.evaluator.k,
        run.compiler,
        graph,
        event_group(count_events(run.data)),
    )
    return Phase(
        index=index,
        config=config,
        settings=run.config.train,
        first_step=first_step,
        frozen=frozen,
        batches=batches,
        place=make_place(run, catalogue, candidates, extra),
        scorer=scorer,
        step=make_step(run, model, optimizer, state, config.ema),
        dropout_key=replicate(jax.random.key(run.config.seed + 1), run.mesh),
        refresh_steps=run.config.loss.refresh_steps,
        # On CPUs, steps that are dispatched early hold their temporaries early, in new
        # pages of memory: a fine-tuning step took 3 times the memory and was slower.
        synchronous=jax.default_backend() == "cpu",
        learning_rates=group_learning_rates(optimizer, rules),
    ), state


def training_graph(run: Run) -> Any:
    """Returns the graph of the training events on the devices; None without layers."""
    if not run.model.graph_layers:
        return None
    users_E, items_E = run.data.train.pairs()
    return replicate(make_graph(users_E, items_E, run.data.num_items), run.mesh)


def make_place(
    run: Run,
    catalogue: CatalogueArrays,
    candidates: tuple[Any, Items] | None,
    extra: dict[str, Any],
) -> Callable[[Batch], tuple[Any, Batch]]:
    """Returns a function that puts a batch, and the arrays it reads, on the devices.

    Args:
      run: the run.
      catalogue: arrays of all items, from which those of a batch are taken.
      candidates: arrays and items of every batch; None if the batches differ in them.
      extra: further arrays, the same for every batch.
    """

    def place(batch: Batch) -> tuple[Any, Batch]:
        if candidates is not None:
            arrays, items = candidates
        else:
            assert batch.items is not None
            arrays, items = catalogue.take(batch.items)
        placed: Batch = shard_batch(
            batch._replace(items=None, examples_B=None), run.mesh
        )
        return {**arrays, **extra}, placed._replace(items=items)

    return place


def log_params(run: Run, config: Any, rules: PhaseRules, params: FlatParams) -> None:
    """Logs which parameters a phase trains, and their learning rates."""
    log, (trainable, _) = run.reporter.log, rules.split(params)
    log(
        f"\nphase {config.name}: at most {config.epochs} epochs of "
        f"{run.config.optim.name}, {count_params(trainable):,} of "
        f"{count_params(params):,} parameters trained"
    )
    log(param_summary(params, rules, config.lr))
    full = full_param_table(params, rules, config.lr)
    run.reporter.text(f"params/{config.name}", full)


def group_learning_rates(
    optimizer: Optimizer, rules: PhaseRules
) -> Callable[[int], dict[str, float]]:
    """Returns a function: step of the phase -> learning rate by group of parameters."""
    multipliers = rules.group_multipliers()

    def learning_rates(step: int) -> dict[str, float]:
        rate = float(optimizer.schedule(step))
        return {group: rate * mult for group, mult in multipliers.items()}

    return learning_rates


def make_batches(run: Run, phase: Any, seed: int) -> TrainBatches:
    """Builds the training batches of a phase."""
    config, num_devices = run.config, run.mesh.shape["data"]
    size = phase.batch_size or config.train.batch_size
    even = round_up(size, num_devices)
    if size != even:
        run.reporter.log(
            f"batches of {even} users, not {size}: the same number on each of "
            f"{num_devices} devices"
        )
    reads_ratings = learns_likes(config.loss) or config.user_tower.ratings
    windows = make_windows(config, run.data.train, run.neighbours_NxK)
    if len(windows.examples) < (num_examples := len(run.data.train)):
        run.reporter.log(
            f"{num_examples:,} examples, read as {len(windows.examples):,} sequences"
        )
    return TrainBatches(
        windows,
        batch_size=even,
        epoch_steps=phase.epoch_steps,
        negatives=phase.negatives or config.loss.negatives,
        logq=config.loss.logq,
        num_items=run.data.num_items,
        excluded_N=excluded_items(run),
        num_negatives=config.loss.num_negatives,
        multiple=row_multiple(run.mesh),
        like=config.eval.like_threshold if reads_ratings else None,
        rated_only=config.loss.name == RATING,
        by_length=config.train.by_length,
        seed=seed,
    )


def excluded_items(run: Run) -> np.ndarray:
    """Returns whether each item is excluded from the negatives: bool_N.

    A new item must not be learned as one that nobody wants. Only texts can represent
    it, so that a model of ids alone learns to rank it last, unless it is held out.
    """
    excluded_N = run.data.held_out_N
    if run.model.text is not None:
        excluded_N = excluded_N | (count_events(run.data) == 0)
    return excluded_N


def make_windows(
    config: Any, examples: Examples, neighbours_NxK: np.ndarray | None = None
) -> NextItem:
    """Cuts histories into windows: next-item targets, or masked items (BERT4Rec).

    Args:
      config: the config of the run.
      examples: the training examples.
      neighbours_NxK: the items that may replace an item, for `augment.substitute`.

    Raises:
      UserError: no example has a history.
    """
    data = config.data
    if not examples.lengths().any():
        raise UserError("data.split: no training example has a history to learn from")
    if data.windows == "all":
        examples = merge_prefixes(examples, data.history_length)
    options = {
        "windows": data.windows,
        "shuffle_ties": data.shuffle_ties,
        "reverse": data.reverse,
    }
    if config.user_tower.name in BIDIRECTIONAL:
        share = config.user_tower.mask_share
        return MaskedItem(examples, data.history_length, share=share, **options)
    shares = {name: config.augment[name] for name in TRANSFORMATIONS}
    return NextItem(
        examples,
        data.history_length,
        augmentation=Augmentation(config.augment.rate, shares, neighbours_NxK),
        with_times=config.user_tower.time,
        **options,
    )


def init_state(
    mesh: Mesh, optimizer: Optimizer, trainable: FlatParams, step: int, *, average: bool
) -> TrainState:
    """Builds the state at the start of a phase."""
    # Copies, because the train step reuses the memory of its inputs.
    trainable = copy_params(trainable)
    average_params = copy_params(trainable) if average else {}
    # Moments are placed like their weights; scalars lie on every device.
    opt_state = jax.tree.map(
        lambda x: x if isinstance(x.sharding, NamedSharding) else replicate(x, mesh),
        optimizer.tx.init(trainable),
    )
    monitor = LossMonitor(np.float32(0), np.int32(0), np.int32(0))
    placed_step, monitor = replicate((np.int32(step), monitor), mesh)
    return TrainState(placed_step, trainable, average_params, opt_state, monitor)


def make_step(
    run: Run, model: Recommender, optimizer: Optimizer, state: TrainState, ema: float
) -> Compiled:
    """Compiles the train step; the new state is placed like the old one."""
    loss = LOSSES[run.config.loss.name](run.config.loss, run.data.num_items)

    def step(state: TrainState, *inputs: Any) -> Any:
        return train_step(
            state,
            *inputs,
            model=model,
            loss=loss,
            tx=optimizer.tx,
            ema=ema,
            spike=run.config.train.spike,
        )

    state_sharding = jax.tree.map(lambda x: x.sharding, state)
    metrics_sharding = replicated(run.mesh)
    return run.compiler("train_step", step, (0,), (state_sharding, metrics_sharding))
