"""Transformations of gradients that optax does not have, over flat parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from recjax.common.param_paths import FlatParams
from recjax.models.items.text_source import is_text_block


class SharedAdamState(NamedTuple):
    """State of `scale_by_shared_adam`; the dicts are by path."""

    step: jax.Array
    mean: FlatParams
    square: FlatParams  # one number for each array


def scale_by_shared_adam(
    b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015) with one second moment for each array.

    Adam moves a row of an embedding table by about the learning rate in every step,
    however small its gradient: an item of few events, which is a negative in almost all
    steps, moves as far as a popular one. With a common scale, rows move in proportion
    to their gradients.
    """

    def init(params: FlatParams) -> SharedAdamState:
        square = jax.tree.map(lambda x: jnp.zeros((), x.dtype), params)
        mean = jax.tree.map(jnp.zeros_like, params)
        return SharedAdamState(jnp.zeros((), jnp.int32), mean, square)

    def update(
        updates: FlatParams, state: SharedAdamState, params: Any = None
    ) -> tuple[FlatParams, SharedAdamState]:
        del params
        step = state.step + 1
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, updates)
        square = jax.tree.map(
            lambda v, g: b2 * v + (1 - b2) * jnp.mean(g * g), state.square, updates
        )
        # Both means begin at zero, and are corrected for it.
        scale_1, scale_2 = 1 / (1 - b1**step), 1 / (1 - b2**step)
        updates = jax.tree.map(
            lambda m, v: scale_1 * m / (jnp.sqrt(scale_2 * v) + eps), mean, square
        )
        return updates, SharedAdamState(step, mean, square)

    return optax.GradientTransformation(init, update)


def decay_to_start(strength: float) -> optax.GradientTransformation:
    """Decays the encoder's weights towards their first values.

    Weights that begin pretrained should end near them, not near zero (Li et al.,
    Explicit inductive bias for transfer learning, L2-SP, 2018).
    """

    def init(params: FlatParams) -> FlatParams:
        # Copies, because the train step reuses the memory of its inputs.
        return {p: jnp.copy(x) for p, x in params.items() if is_text_block(p)}

    def update(
        updates: FlatParams, start: FlatParams, params: Any = None
    ) -> tuple[FlatParams, FlatParams]:
        pulled = {p: updates[p] + strength * (params[p] - x) for p, x in start.items()}
        return {**updates, **pulled}, start

    return optax.GradientTransformation(init, update)
