"""Train state, the pure train step, and the one place where functions are compiled."""

import time
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from recjax import sharding, trees
from recjax.losses import Loss, Scored


class Guard(flax.struct.PyTreeNode):
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
    trainable: trees.Flat
    average: trees.Flat
    opt_state: Any
    guard: Guard

    @property
    def result(self) -> trees.Flat:
        """The parameters that are evaluated and kept."""
        return self.average or self.trainable


def train_step(
    state: TrainState,
    frozen: trees.Flat,
    catalogue: Any,
    batch: Any,
    asked_M: jax.Array,
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
      asked_M: what the process of each device asks for; see `signals.Watch`.
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
    mask_P = batch.place_P >= 0
    targets = jnp.maximum(mask_P.sum(), 1)

    def mean_loss(trainable: trees.Flat) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        params = trees.unflatten({**trainable, **frozen})
        compared = model.apply({"params": params}, catalogue, batch, True, rngs=rngs)
        queries_PxD, candidates_UxD, bias_U = compared
        scored = Scored(
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
        return loss_P.sum() / targets, tuple(spread(x, mask_P) for x in vectors)

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
        "asked": asked_M.max(),
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


METRICS = (
    "loss",
    "grad_norm",
    "targets",
    "spread/users",
    "spread/items",
    "counts",
    "skipped",
    "asked",
)
FEW = 2  # vectors, below which nothing is said of their spread
SPIKE_AFTER = 100  # batches, before which no loss is called a spike


def spread(vectors_PxD: jax.Array, mask_P: jax.Array) -> jax.Array:
    """How far directions differ: 0 if all are one, towards 1 if they cancel out.

    1 where there are too few to tell.

    The circular variance (Mardia and Jupp, Directional Statistics, 2000, section 9.2).
    """
    x_PxD = jax.lax.stop_gradient(vectors_PxD).astype(jnp.float32)
    square_Px1 = jnp.sum(x_PxD * x_PxD, axis=1, keepdims=True)
    unit_PxD = x_PxD * jax.lax.rsqrt(jnp.maximum(square_Px1, 1e-12))
    total_D = jnp.where(mask_P[:, None], unit_PxD, 0).sum(0)
    count = mask_P.sum()
    spread = 1 - jnp.linalg.norm(total_D) / jnp.maximum(count, 1)
    return jnp.where(count < FEW, 1.0, spread)


class Compiler:
    """Compiles ahead of time, says so, and adds up the seconds that it took.

    Args:
      say: receives two lines for every new set of shapes.
      mesh: of the run.

    Attributes:
      everywhere: the sharding of what every process reads.
      seconds: spent so far.
    """

    def __init__(self, say: Callable[[str], None], mesh: Mesh):
        self.say, self.seconds = say, 0.0
        self.everywhere = sharding.replicated(mesh)

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        donate: tuple[int, ...] = (),
        out_shardings: Any = None,
    ) -> "Compiled":
        """The function, to be compiled at its first call.

        Args:
          name: for the messages.
          function: pure.
          donate: positions of arguments whose memory may be reused.
          out_shardings: as `jax.jit` takes them.
        """
        jitted = jax.jit(function, donate_argnums=donate, out_shardings=out_shardings)
        return Compiled(self, name, jitted)

    def compile(self, name: str, jitted: Any, args: tuple[Any, ...]) -> Any:
        """The program for arguments of these shapes."""
        self.say(f"compiling {name} ...")
        start = time.perf_counter()
        program = jitted.lower(*args).compile()
        took = time.perf_counter() - start
        self.seconds += took
        self.say(f"compiled {name} in {took:.1f} s")
        return program


class Compiled:
    """A jitted function, made by a `Compiler`."""

    def __init__(self, compiler: Compiler, name: str, jitted: Any):
        self._compiler, self._name, self._jitted = compiler, name, jitted
        self._programs: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        """Runs the function, compiling it first where the shapes are new."""
        leaves, structure = jax.tree.flatten(args)
        key = (structure, tuple((x.shape, x.dtype, _placement(x)) for x in leaves))
        if key not in self._programs:
            program = self._compiler.compile(self._name, self._jitted, args)
            self._programs[key] = program
        return self._programs[key](*args)

    def memory(self, *args: Any) -> int:
        """Bytes on a device for a call: what it is given, what it gives, between.

        Args:
          *args: arrays or their shapes.
        """
        found = self._jitted.lower(*args).compile().memory_analysis()
        return int(
            found.argument_size_in_bytes
            + found.output_size_in_bytes
            - found.alias_size_in_bytes
            + found.temp_size_in_bytes
        )

    def __len__(self) -> int:
        """How many sets of shapes have been compiled."""
        return len(self._programs)


def _placement(x: jax.Array) -> Any:
    """Where an array lies, the same for equivalent shardings."""
    if not isinstance(x.sharding, NamedSharding):
        return x.sharding
    axes = tuple(x.sharding.spec)
    while axes and axes[-1] is None:
        axes = axes[:-1]
    return x.sharding.mesh, axes
