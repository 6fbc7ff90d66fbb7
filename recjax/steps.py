"""Train state, the pure train step, and the one place where functions are compiled."""

import time
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from recjax import trees
from recjax.losses import Loss


class TrainState(flax.struct.PyTreeNode):
    """What a step changes; parameters are flat `{path: array}` dicts.

    Attributes:
      average: running mean of `trainable`; empty where there is none.
    """

    step: jax.Array
    trainable: trees.Flat
    average: trees.Flat
    opt_state: Any

    @property
    def result(self) -> trees.Flat:
        """The parameters that are evaluated and kept."""
        return self.average or self.trainable


def train_step(
    state: TrainState,
    frozen: trees.Flat,
    catalogue: Any,
    batch: Any,
    key: jax.Array,
    *,
    model: Any,
    loss: Loss,
    tx: optax.GradientTransformation,
    ema: float,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: the gradient is taken of the trainable parameters only.

    Args:
      state: before.
      frozen: the other parameters, only read.
      catalogue: per source, arrays of all items.
      batch: a `Batch` with its items.
      key: dropout key of the run; the step is folded in.
      model: a `Recommender`.
      loss: made by one of `losses.LOSSES`.
      tx: transformation of `state.trainable`.
      ema: decay of `state.average` (Polyak and Juditsky, 1992).

    Returns:
      The state after, and scalar metrics `loss`, `grad_norm`, `targets`.
    """
    rngs = {"dropout": jax.random.fold_in(key, state.step)}
    mask_P = batch.place_P >= 0
    targets = jnp.maximum(mask_P.sum(), 1)

    def mean_loss(trainable: trees.Flat) -> jax.Array:
        params = trees.unflatten({**trainable, **frozen})
        scored = model.apply({"params": params}, catalogue, batch, True, rngs=rngs)
        loss_P = loss(*scored, batch.targets_P, mask_P, batch.items.log_weight_U)
        return loss_P.sum() / targets

    value, grads = jax.value_and_grad(mean_loss)(state.trainable)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    trainable: Any = optax.apply_updates(state.trainable, updates)
    after = state.replace(
        step=state.step + 1,
        trainable=trainable,
        average={
            path: ema * x + (1 - ema) * trainable[path]
            for path, x in state.average.items()
        },
        opt_state=opt_state,
    )
    metrics = {
        "loss": value,
        "grad_norm": optax.tree.norm(grads),
        "targets": targets,
    }
    return after, metrics


class Compiler:
    """Compiles ahead of time, says so, and adds up the seconds that it took.

    Args:
      say: receives two lines for every new set of shapes.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say, self.seconds = say, 0.0

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
