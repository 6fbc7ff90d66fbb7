"""Leaves out tokens of texts at random."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def drop_tokens(packed: Any, key: Array, *, rate: float, span: float) -> Any:
    """Turns tokens of packed texts into padding, which is neither attended nor pooled.

    A text's first and last token, which are special in the encoders here, stay, and so
    do the positions of all others (Shen et al., token cutoff and span cutoff, 2020).

    Args:
      packed: `Packed` texts on the devices.
      key: a random key.
      rate: probability of each token to be left out.
      span: share of a text's tokens that are left out in one place, on average: a
        number that is not whole is rounded up or down at random.
    """
    owner_RxL, position_RxL = packed.owner_RxL, packed.position_RxL
    size = len(packed.first_U)
    ones_T = jnp.ones(owner_RxL.size, jnp.int32)
    # Padding belongs to text U, which is out of range, so the sum leaves it out.
    length_U = jax.ops.segment_sum(ones_T, owner_RxL.reshape(-1), size)
    inner_U = jnp.maximum(length_U - 2, 0)

    token_key, span_key = jax.random.split(key)
    draw_2xU = jax.random.uniform(span_key, (2, size))
    span_U = jnp.floor(span * inner_U + draw_2xU[0])
    start_U = 1 + jnp.floor(draw_2xU[1] * (inner_U - span_U + 1))

    def by_token(values_U: Array) -> Array:
        return values_U.at[owner_RxL].get(mode="fill", fill_value=0)

    is_inner_RxL = (position_RxL > 0) & (position_RxL <= by_token(inner_U))
    after_start_RxL = position_RxL >= by_token(start_U)
    in_span_RxL = after_start_RxL & (position_RxL < by_token(start_U + span_U))
    dropped_RxL = jax.random.bernoulli(token_key, rate, owner_RxL.shape) | in_span_RxL
    dropped_RxL &= is_inner_RxL
    return packed._replace(
        segment_RxL=jnp.where(dropped_RxL, 0, packed.segment_RxL),
        owner_RxL=jnp.where(dropped_RxL, size, owner_RxL),
    )
