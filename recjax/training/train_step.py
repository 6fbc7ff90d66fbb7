"""The train state and the pure train step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.common.vectors import unit_vectors
from recjax.losses.base import Loss, LossInputs
from recjax.models.recommender import Recommender

MIN_VECTORS = 2  # fewer give no meaningful variance
SPIKE_AFTER = 100  # accepted batches, before which no loss is called a spike


class LossMonitor(flax.struct.PyTreeNode):
    """Running loss statistics, used to detect spikes.

    Attributes:
      mean: running mean of the losses of accepted batches.
      accepted: number of accepted batches.
      skipped: number of batches that were not trained on.
    """

    mean: jax.Array
    accepted: jax.Array
    skipped: jax.Array


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes; parameters are flat `{path: array}` dicts.

    Attributes:
      average: running mean of `trainable`; empty if the phase keeps none.
    """

    step: jax.Array
    trainable: FlatParams
    average: FlatParams
    opt_state: Any
    monitor: LossMonitor

    @property
    def result(self) -> FlatParams:
        """The parameters that are evaluated and kept."""
        return self.average or self.trainable


def train_step(
    state: TrainState,
    frozen: FlatParams,
    catalogue: Any,
    batch: Any,
    key: jax.Array,
    *,
    model: Any,
    loss: Loss,
    tx: optax.GradientTransformation,
    ema: float,
    spike: float,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the trainable parameters once.

    A batch whose loss or gradient is not finite, or whose loss is far above the mean so
    far, changes nothing but the counts of steps and of skipped batches.

    Args:
      state: the state before the step.
      frozen: the other parameters, only read.
      catalogue: the arrays of all items, by item source.
      batch: a `Batch` with its items.
      key: dropout key of the run; the step number is folded in.
      model: a `Recommender`.
      loss: a loss made by one of `losses.LOSSES`.
      tx: the optax transformation of the gradients.
      ema: decay of `state.average` (Polyak and Juditsky, 1992).
      spike: a loss above this multiple of the mean so far is skipped; 0 = never.

    Returns:
      The state after the step, and scalar metrics by name.
    """
    # Derived from the step, so that a resumed run draws the same dropout masks.
    rngs = {"dropout": jax.random.fold_in(key, state.step)}

    def loss_of(trainable: FlatParams) -> tuple[jax.Array, dict[str, jax.Array]]:
        params = unflatten_params({**trainable, **frozen})
        return mean_loss(params, catalogue, batch, rngs, model, loss)

    # Only the trainable parameters are differentiated: frozen layers cost no backward
    # pass and no memory for their gradients.
    differentiate = jax.value_and_grad(loss_of, has_aux=True)
    (value, metrics), grads = differentiate(state.trainable)
    grad_norm = optax.tree.norm(grads)
    accepted = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    # Learned weights of several losses can make their sum negative.
    monitored = metrics.get("loss/main", value)
    if spike:
        is_early = state.monitor.accepted < SPIKE_AFTER
        accepted &= is_early | (monitored < spike * state.monitor.mean)
    # Both states are computed and one is chosen: a branch would split the program.
    after = _update(state, monitored, grads, tx, ema)
    after = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), after, state)
    skipped = state.monitor.skipped + jnp.where(accepted, 0, 1)
    after = after.replace(
        step=state.step + 1, monitor=after.monitor.replace(skipped=skipped)
    )
    metrics |= {"loss": value, "grad_norm": grad_norm}
    return after, {**metrics, "accepted": accepted, "skipped": skipped}


def mean_loss(
    params: Any, catalogue: Any, batch: Any, rngs: Any, model: Any, loss: Loss
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean loss over the targets of a batch, and metrics of its vectors.

    With auxiliary losses it is the weighted sum, and each is a metric.
    """
    queries_PxD, candidates_UxD, bias_U, auxiliary = model.apply(
        {"params": params}, catalogue, batch, True, rngs=rngs
    )
    # Padding has position -1 and takes no part in the mean.
    mask_P = batch.position_P >= 0
    targets = jnp.maximum(mask_P.sum(), 1)
    loss_P = loss(
        LossInputs(
            queries_PxD,
            candidates_UxD,
            bias_U,
            batch.targets_P,
            mask_P,
            batch.items.log_weight_U,
            batch.label_P,
        )
    )
    items_PxD = candidates_UxD[batch.targets_P]
    main = loss_P.sum() / targets
    metrics = {
        "targets": targets,
        "spread/users": directional_variance(queries_PxD, mask_P),
        "spread/items": directional_variance(items_PxD, mask_P),
    }
    if not auxiliary:
        return main, metrics
    for name, x in {"main": main, **auxiliary}.items():
        metrics[f"loss/{name}"] = x
    combine = Recommender.combine_losses
    total = model.apply({"params": params}, main, auxiliary, method=combine)
    return total, metrics


def _update(
    state: TrainState,
    value: jax.Array,
    grads: Any,
    tx: optax.GradientTransformation,
    ema: float,
) -> TrainState:
    """Returns the state after an accepted batch, with the step number as before."""
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    trainable: Any = optax.apply_updates(state.trainable, updates)
    average = {
        path: ema * x + (1 - ema) * trainable[path] for path, x in state.average.items()
    }
    monitor = state.monitor
    # The first accepted loss starts the mean.
    mean = jnp.where(monitor.accepted, 0.99 * monitor.mean + 0.01 * value, value)
    return state.replace(
        trainable=trainable,
        average=average,
        opt_state=opt_state,
        monitor=monitor.replace(mean=mean, accepted=monitor.accepted + 1),
    )


def directional_variance(vectors_PxD: jax.Array, mask_P: jax.Array) -> jax.Array:
    """Circular variance of directions: 0 if all are equal, near 1 if they cancel out.

    Near 0 the vectors have collapsed into one direction. With fewer than `MIN_VECTORS`
    it is 1 (Mardia and Jupp, Directional Statistics, 2000, section 9.2).
    """
    unit_PxD = unit_vectors(jax.lax.stop_gradient(vectors_PxD))
    total_D = jnp.where(mask_P[:, None], unit_PxD, 0).sum(0)
    count = mask_P.sum()
    spread = 1 - jnp.linalg.norm(total_D) / jnp.maximum(count, 1)
    return jnp.where(count < MIN_VECTORS, 1.0, spread)
