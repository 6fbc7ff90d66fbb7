"""Self-attention and additive attention over the history (NRMS)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from recjax.models.layers.attention import Attention
from recjax.models.layers.dropout import Dropout

# Maximum score, sum of weights and weighted sum of vectors over a part of the history.
Segment = tuple[Array, Array, Array]


class AdditiveTower(nn.Module):
    """Self-attention among the items, then their average by additive attention.

    Wu et al., NRMS, 2019, section 2.2, made causal, so that every prefix has its own
    user vector. The order of the items has no effect.
    """

    num_heads: int
    hidden: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, history_BxHxD: Array, mask_BxH: Array, train: bool) -> Array:
        length = history_BxHxD.shape[1]
        x = Dropout(self.dropout)(history_BxHxD, train)
        causal_HxH = jnp.tril(jnp.ones((length, length), bool))
        mask_BxHxH = causal_HxH[None] & mask_BxH[:, None, :]
        options = self.num_heads, self.dropout, self.dtype
        x = Attention(*options, name="attention")(x, mask_BxHxH, train)
        y = jnp.tanh(nn.Dense(self.hidden, dtype=self.dtype, name="hidden")(x))
        score = nn.Dense(1, use_bias=False, dtype=jnp.float32, name="query")(y)
        return running_average(x, score, mask_BxH).astype(self.dtype)


def running_average(x_BxHxD: Array, score_BxHx1: Array, mask_BxH: Array) -> Array:
    """Softmax-weighted average of every prefix, in one associative scan."""

    # Weights are relative to a segment's own maximum, so that no exponential overflows.
    def merge(left: Segment, right: Segment) -> Segment:
        higher = jnp.maximum(left[0], right[0])
        scale_left = jnp.exp(left[0] - higher)
        scale_right = jnp.exp(right[0] - higher)
        return (
            higher,
            left[1] * scale_left + right[1] * scale_right,
            left[2] * scale_left + right[2] * scale_right,
        )

    mask_BxHx1 = mask_BxH[..., None]
    items = (
        jnp.where(mask_BxHx1, score_BxHx1, -1e30),
        mask_BxHx1.astype(jnp.float32),
        jnp.where(mask_BxHx1, x_BxHxD.astype(jnp.float32), 0.0),
    )
    _, weight_BxHx1, total_BxHxD = jax.lax.associative_scan(merge, items, axis=1)
    return total_BxHxD / jnp.maximum(weight_BxHx1, 1e-30)
