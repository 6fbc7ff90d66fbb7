"""Pools the token states of a text into one vector."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class AttentionPool(nn.Module):
    """Additive attention over a text's tokens (Wu et al., NRMS, 2019, equation 5)."""

    width: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, states_RxLxE: Array, packed: Any) -> Array:
        hidden = nn.Dense(self.width, dtype=self.dtype, name="hidden")(states_RxLxE)
        score = nn.Dense(1, use_bias=False, dtype=jnp.float32, name="query")
        score_T = score(jnp.tanh(hidden)).reshape(-1)
        size, owner_T = packed.first_U.shape[0], packed.owner_RxL.reshape(-1)
        # A softmax over each text's tokens. Padding belongs to text U, which is out of
        # range and therefore dropped by the segment sums.
        max_U = jax.ops.segment_max(score_T, owner_T, size)
        max_U = jnp.where(jnp.isfinite(max_U), max_U, 0)
        weight_T = jnp.exp(score_T - max_U.at[owner_T].get(mode="fill", fill_value=0))
        states_TxE = states_RxLxE.reshape(-1, states_RxLxE.shape[-1])
        total_UxE = jax.ops.segment_sum(weight_T[:, None] * states_TxE, owner_T, size)
        total_U = jax.ops.segment_sum(weight_T, owner_T, size)
        return total_UxE / jnp.maximum(total_U, 1e-9)[:, None]


def pool_first(states_RxLxE: Array, packed: Any) -> Array:
    """State of each text's first token, which is [CLS] for most tokenizers."""
    return states_RxLxE.reshape(-1, states_RxLxE.shape[-1])[packed.first_U]


def pool_mean(states_RxLxE: Array, packed: Any) -> Array:
    """Mean over each text's tokens, special tokens included."""
    size, owner_T = packed.first_U.shape[0], packed.owner_RxL.reshape(-1)
    states_TxE = states_RxLxE.reshape(-1, states_RxLxE.shape[-1])
    total_UxE = jax.ops.segment_sum(states_TxE, owner_T, size)
    count_U = jax.ops.segment_sum(jnp.ones_like(owner_T), owner_T, size)
    return total_UxE / jnp.maximum(count_U, 1)[:, None]
