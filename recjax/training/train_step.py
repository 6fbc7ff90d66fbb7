"""Train state, the pure train step, and the one place where functions are compiled."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.common.vectors import unit_vectors
from recjax.losses.base import Loss, LossInputs


class LossMonitor(flax.struct.PyTreeNode):
    """What the losses so far were like.

    Attributes:
      mean: running mean of the losses of batches that counted.
      counted: how many they are.
      skipped: batches that were not trained on.
    """

    mean: jax.Array
    counted: jax.Array
    skipped: jax.Array


class TrainState(flax.struct.PyTreeNode):
    """What a step changes; parameters are flat `{path: array}` dicts.

    Attributes:
      average: running mean of `trainable`; empty where there is none.
    """

    step: jax.Array
    trainable: FlatParams
    average: FlatParams
    opt_state: Any
    guard: LossMonitor

    @property
    def result(self) -> FlatParams:
        """The parameters that are evaluated and kept."""
        return self.average or self.trainable


def train_step(
    state: TrainState,
    frozen: FlatParams,
    catalogue: Any,
    batch: Any,
    requests_M: jax.Array,
    key: jax.Array,
    *,
    model: Any,
    loss: Loss,
    tx: optax.GradientTransformation,
    ema: float,
    spike: float,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: the gradient is taken of the trainable parameters only.

    A batch whose loss or gradient is not finite, or whose loss is far above those
    before, changes nothing but the counts of steps and of skipped batches.

    Args:
      state: before.
      frozen: the other parameters, only read.
      catalogue: per source, arrays of all items.
      batch: a `Batch` with its items.
      requests_M: what the process of each device asks for; see `signals.Watch`.
      key: dropout key of the run; the step is folded in.
      model: a `Recommender`.
      loss: made by one of `losses.LOSSES`.
      tx: transformation of `state.trainable`.
      ema: decay of `state.average` (Polyak and Juditsky, 1992).
      spike: a loss so many times the mean of those before is too large; 0 = never.

    Returns:
      The state after, and scalar metrics; `METRICS` has their names.
    """
    rngs = {"dropout": jax.random.fold_in(key, state.step)}
    mask_P = batch.position_P >= 0
    targets = jnp.maximum(mask_P.sum(), 1)

    def mean_loss(trainable: FlatParams) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        params = unflatten_params({**trainable, **frozen})
        compared = model.apply({"params": params}, catalogue, batch, True, rngs=rngs)
        queries_PxD, candidates_UxD, bias_U = compared
        scored = LossInputs(
            queries_PxD,
            candidates_UxD,
            bias_U,
            batch.targets_P,
            mask_P,
            batch.items.log_weight_U,
            batch.label_P,
        )
        loss_P = loss(scored)
        vectors = queries_PxD, candidates_UxD[batch.targets_P]
        return loss_P.sum() / targets, tuple(
            directional_variance(x, mask_P) for x in vectors
        )

    (value, spreads), grads = jax.value_and_grad(mean_loss, has_aux=True)(
        state.trainable
    )
    grad_norm, guard = optax.tree.norm(grads), state.guard
    after = _update(state, value, grads, tx, ema)
    counts = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    if spike:
        counts &= (guard.counted < SPIKE_AFTER) | (value < spike * guard.mean)
    after = jax.tree.map(lambda new, old: jnp.where(counts, new, old), after, state)
    skipped = guard.skipped + jnp.where(counts, 0, 1)
    after = after.replace(
        step=state.step + 1, guard=after.guard.replace(skipped=skipped)
    )
    metrics = {
        "loss": value,
        "grad_norm": grad_norm,
        "targets": targets,
        "spread/users": spreads[0],
        "spread/items": spreads[1],
        "counts": counts,
        "skipped": skipped,
        "asked": requests_M.max(),
    }
    return after, metrics


def _update(
    state: TrainState,
    value: jax.Array,
    grads: Any,
    tx: optax.GradientTransformation,
    ema: float,
) -> TrainState:
    """The state after a batch that counts, but for its step."""
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    trainable: Any = optax.apply_updates(state.trainable, updates)
    average = {
        path: ema * x + (1 - ema) * trainable[path] for path, x in state.average.items()
    }
    guard = state.guard
    mean = jnp.where(guard.counted, 0.99 * guard.mean + 0.01 * value, value)
    after: TrainState = state.replace(
        trainable=trainable,
        average=average,
        opt_state=opt_state,
        guard=guard.replace(mean=mean, counted=guard.counted + 1),
    )
    return after


STEP_METRICS = (
    "loss",
    "grad_norm",
    "targets",
    "spread/users",
    "spread/items",
    "counts",
    "skipped",
    "asked",
)
MIN_VECTORS = 2  # vectors, below which nothing is said of their spread
SPIKE_AFTER = 100  # batches, before which no loss is called a spike


def directional_variance(vectors_PxD: jax.Array, mask_P: jax.Array) -> jax.Array:
    """How far directions differ: 0 if all are one, towards 1 if they cancel out.

    1 where there are too few to tell.

    The circular variance (Mardia and Jupp, Directional Statistics, 2000, section 9.2).
    """
    unit_PxD = unit_vectors(jax.lax.stop_gradient(vectors_PxD))
    total_D = jnp.where(mask_P[:, None], unit_PxD, 0).sum(0)
    count = mask_P.sum()
    spread = 1 - jnp.linalg.norm(total_D) / jnp.maximum(count, 1)
    return jnp.where(count < MIN_VECTORS, 1.0, spread)
