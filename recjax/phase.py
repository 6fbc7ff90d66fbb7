"""One training phase: frozen prefix, epochs with early stopping, the best state."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from recjax import losses, optim, report, sharding, trees
from recjax.checkpoint import Checkpoints
from recjax.data.batches import Items, Packing, TrainBatches, round_up
from recjax.data.protocol import Data
from recjax.data.text import Tokens
from recjax.errors import UserError
from recjax.evaluate import Evaluation, Evaluator, ModelScorer, catalogue_chunks
from recjax.models.prefix import TEXT, compute_prefix, count_frozen_blocks
from recjax.models.recommender import Recommender
from recjax.steps import Compiled, TrainState, train_step


@dataclass
class Run:
    """What every part of a run needs; built once, by `train.run`."""

    config: Any
    data: Data
    tokens: Tokens | None
    model: Recommender
    mesh: Mesh
    evaluator: Evaluator
    reporter: report.Reporter
    checkpoints: Checkpoints
    seconds: dict[str, float] = field(default_factory=dict)

    def packing(self) -> Packing:
        """How the catalogue's texts are packed."""
        assert self.tokens is not None
        width = max(self.config.text.row_tokens, int(self.tokens.lengths.max()))
        return Packing(self.tokens, width, sharding.row_multiple(self.mesh))

    def chunks(self, packing: Packing | None) -> list[Items]:
        """The catalogue, in pieces whose texts fill `text.rows_per_batch` rows."""
        size = self.data.num_items
        if packing:
            tokens = self.config.text.rows_per_batch * packing.width
            size = int(tokens / max(float(packing.tokens.lengths.mean()), 1.0))
        return catalogue_chunks(
            self.data.num_items, max(size, 1), packing, sharding.row_multiple(self.mesh)
        )

    def put(self, tree: Any) -> Any:
        """Onto the devices, first dimensions over the data axis."""
        return jax.device_put(tree, sharding.by_row(self.mesh, tree))

    def put_whole(self, tree: Any) -> Any:
        """Onto every device."""
        return jax.device_put(tree, sharding.replicated(self.mesh))

    def spend(self, what: str, since: float) -> None:
        """Adds the time since `since` to one of the run's accounts, in seconds."""
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - since


@dataclass(frozen=True)
class Outcome:
    """What a phase leaves: its best parameters and how they do."""

    params: trees.Flat
    step: int
    epochs: int
    trained: int
    valid: Evaluation
    test: Evaluation


def run_phase(r: Run, index: int, name: str, params: trees.Flat, step: int) -> Outcome:
    """Trains one phase and returns its best state, evaluated.

    Args:
      r: the run.
      index: of the phase among those with epochs.
      name: key in `config.train.phases`.
      params: all parameters as they enter it.
      step: global step at its start.
    """
    c, phase, say = r.config, r.config.train.phases[name], r.reporter.say

    # The schedule says what is frozen; what is frozen says what to compute once.
    batches = make_batches(r, seed=c.seed + index)
    total = phase.epochs * batches.steps_per_epoch
    opt = optim.make(c.optim, phase, list(params), total)
    trainable, frozen = optim.split(params, opt)
    say(f"\nphase {name}: at most {phase.epochs} epochs of {c.optim.name}")
    say(report.param_table(params, opt, phase.lr))
    r.reporter.text(f"params/{name}", report.full_param_table(params, opt, phase.lr))
    if not trainable:
        raise UserError(f"train.phases.{name}: lr_mults freeze every parameter")
    say(f"{trees.count(trainable):,} of {trees.count(params):,} parameters trained")
    start = time.perf_counter()
    blocks = count_frozen_blocks(r.model, trainable)
    model = r.model.clone(frozen_blocks=blocks)
    catalogue, packing = make_catalogue(r, model, params, blocks)
    batches.packing = packing
    chunks = [r.put(chunk) for chunk in r.chunks(packing)]
    scorer = ModelScorer(model, catalogue, chunks, r.data.num_items, r.evaluator.k, say)
    everything = None
    if c.loss.negatives == "all":
        everything = r.put(batches.catalogue_items(r.data.num_items))
    r.spend("prefix", start)

    # State and step.
    state = init_state(r, opt, trainable, step)
    step_fn = make_step(r, model, opt, state)
    key = r.put_whole(jax.random.key(c.seed + 1))

    def nested(state: TrainState) -> dict[str, Any]:
        return trees.unflatten({**state.trainable, **frozen})

    def validate(state: TrainState) -> Evaluation:
        return r.evaluator.by_model(scorer, nested(state), r.data.valid)

    # Where the phase stands: at its start, or at the last save.
    iterator = iter(batches)
    meta = r.checkpoints.last_meta()
    if meta and meta["phase"] == index:
        stand = meta["stand"]
        state, best = r.checkpoints.restore_last(state)
        iterator.set_state(json.loads(meta["iterator"]))
        say(f"resuming after epoch {stand['epoch']} of phase {name}")
    else:
        best = jax.tree.map(jnp.copy, state.trainable)
        value = validate(state).mean(c.train.metric)
        say(f"validation {c.train.metric} before the first epoch: {value:.4f}")
        stand = {"epoch": 0, "best": value, "best_epoch": 0}

    # Epochs.
    start, saved_at = time.perf_counter(), time.perf_counter()
    meter = report.Meter(
        r.reporter,
        name=name,
        metric=c.train.metric,
        total=total,
        done=stand["epoch"] * batches.steps_per_epoch,
        first_step=step,
        every=c.report.every_steps,
        rates=lambda n: {
            f"optim/lr/{group}": float(opt.schedule(n)) * mult
            for group, mult in optim.groups(opt).items()
        },
    )
    while stand["epoch"] < phase.epochs:
        waited = stand["epoch"] - stand["best_epoch"]
        if phase.patience and waited >= phase.patience:
            say(f"stopping early: no better {c.train.metric} for {waited} epochs")
            break
        meter.start_epoch(stand["best"])
        for _ in range(batches.steps_per_epoch):
            batch = next(iterator)
            users = int(batch.mask_BxH.any(axis=1).sum())
            batch = r.put(batch)
            if everything is not None:
                batch = batch._replace(items=everything)
            state, values = step_fn(state, frozen, catalogue, batch, key)
            meter.add(values, users)
        meter.end_epoch()
        stand["epoch"] += 1
        evaluation = validate(state)
        now = int(state.step)
        r.reporter.scalars(
            now, {f"valid/{m}": evaluation.mean(m) for m in evaluation.values}
        )
        if (value := evaluation.mean(c.train.metric)) > stand["best"]:
            best = jax.tree.map(jnp.copy, state.trainable)
            stand["best"], stand["best_epoch"] = value, stand["epoch"]
        if time.perf_counter() - saved_at >= c.train.checkpoint_seconds:
            where = {"phase": index, "step": now, "stand": stand}
            where["records"] = r.reporter.records
            where["iterator"] = json.dumps(_plain(iterator.get_state()))
            r.checkpoints.save_last(now, state, best, where)
            saved_at = time.perf_counter()
    meter.close()
    r.spend("train", start + step_fn.seconds)
    r.seconds["compile"] = r.seconds.get("compile", 0.0) + step_fn.seconds

    # The best state, evaluated.
    start = time.perf_counter()
    after = {path: best[path] if path in best else frozen[path] for path in params}
    say(
        f"best validation {c.train.metric} {stand['best']:.4f} after epoch "
        f"{stand['best_epoch']}; train_step was compiled {len(step_fn)} time(s)"
    )
    changed = report.change_report(trees.max_change(params, after), opt)
    say(changed)
    r.reporter.text(f"changes/{name}", changed)
    best_params = trees.unflatten(after)
    valid = r.evaluator.by_model(scorer, best_params, r.data.valid)
    test = r.evaluator.by_model(scorer, best_params, r.data.test)
    now = int(state.step)
    r.reporter.scalars(now, {f"test/{m}": test.mean(m) for m in test.values})
    r.spend("test", start)
    count = trees.count(trainable)
    return Outcome(after, now, stand["epoch"], count, valid, test)


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
        multiple=sharding.row_multiple(r.mesh),
        seed=seed,
    )


def make_catalogue(
    r: Run, model: Recommender, params: trees.Flat, blocks: int
) -> tuple[Any, Packing | None]:
    """Per source, the arrays of all items on the devices; and how to pack texts.

    With frozen blocks the text source gets their output; with only frozen blocks
    nothing is left to pack.
    """
    if r.tokens is None:
        return {}, None
    arrays: dict[str, np.ndarray] = {"ids_T": r.tokens.ids}
    if blocks:
        arrays = encode_prefix(r, model, params, blocks)
        ((name, array),) = arrays.items()
        assert model.encoder_config is not None
        r.reporter.say(
            f"frozen prefix: {blocks} of {model.encoder_config.num_hidden_layers + 2} "
            f"blocks, computed once as {name} ({array.nbytes / 2**20:.1f} MiB)"
        )
    packing = None if "vectors_NxE" in arrays else r.packing()
    return r.put_whole({"text": arrays}), packing


def encode_prefix(
    r: Run, model: Recommender, params: trees.Flat, blocks: int
) -> dict[str, np.ndarray]:
    """Output of the text encoder's first `blocks` blocks for the whole catalogue."""
    packing = r.packing()
    chunks = r.chunks(packing)
    ids = r.put_whole({"text": {"ids_T": packing.tokens.ids}})
    text = {path: x for path, x in params.items() if path.startswith(TEXT)}
    assert model.encoder_config is not None

    def encode(flat: trees.Flat, packed: Any) -> jax.Array:
        variables = {"params": trees.unflatten(flat)}
        return model.apply(
            variables, ids, packed, blocks, method=Recommender.encode_prefix
        )

    def pool(flat: trees.Flat, states: jax.Array, packed: Any) -> jax.Array:
        variables = {"params": trees.unflatten(flat)}
        return model.apply(variables, states, packed, method=Recommender.pool_text)

    encode_fn = Compiled("encoder", encode, r.reporter.say)
    pool_fn = Compiled("pooling", pool, r.reporter.say)
    bar = r.reporter.bar(r.data.num_items, 0, "encoding items", "item")
    out = compute_prefix(
        lambda packed: encode_fn(text, packed),
        lambda states, packed: pool_fn(text, states, packed),
        ((chunk.rows_U, r.put(chunk.packed)) for chunk in chunks),
        advance=bar.update,
        blocks=blocks,
        layers=model.encoder_config.num_hidden_layers,
        num_tokens=len(packing.tokens.ids),
        num_items=r.data.num_items,
    )
    bar.close()
    return out


def init_state(
    r: Run, opt: optim.Optim, trainable: trees.Flat, step: int
) -> TrainState:
    """The state at the start of a phase; optimizer state placed like the weights."""
    trainable = jax.tree.map(jnp.copy, trainable)  # the step gives its memory away
    opt_state = jax.tree.map(
        lambda x: x if isinstance(x.sharding, NamedSharding) else r.put_whole(x),
        opt.tx.init(trainable),
    )
    return TrainState(r.put_whole(jnp.int32(step)), trainable, opt_state)


def make_step(
    r: Run, model: Recommender, opt: optim.Optim, state: TrainState
) -> Compiled:
    """The compiled train step; state comes back placed as it went in."""
    loss = losses.LOSSES[r.config.loss.name]

    def step(state: TrainState, *inputs: Any) -> Any:
        return train_step(state, *inputs, model=model, loss=loss, tx=opt.tx)

    placed = jax.tree.map(lambda x: x.sharding, state)
    metrics = dict.fromkeys(
        ("loss", "grad_norm", "targets"), sharding.replicated(r.mesh)
    )
    return Compiled("train_step", step, r.reporter.say, (0,), (placed, metrics))


def _plain(state: Any) -> Any:
    """A grain iterator's state as JSON values."""
    return json.loads(state.decode()) if isinstance(state, bytes) else state
