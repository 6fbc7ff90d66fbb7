"""User vectors of LightGCN from propagated item vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class GraphTower(nn.Module):
    """Sum of the history's vectors, divided by the root of the history's length.

    The vectors come from `graph.propagate`, which has divided them by the root of the
    item's degree; together this is a graph convolution (He et al., LightGCN, 2020,
    equation 3).
    """

    @nn.compact
    def __call__(
        self, history_BxHxD: jax.Array, mask_BxH: jax.Array, train: bool
    ) -> jax.Array:
        """users_BxHxD; position h sees the items up to h."""
        del train
        mask_BxHx1 = mask_BxH[..., None].astype(jnp.float32)  # accumulate in float32
        total_BxHxD = jnp.cumsum(history_BxHxD * mask_BxHx1, axis=1)
        degree_BxHx1 = jnp.cumsum(mask_BxHx1, axis=1)
        users_BxHxD = total_BxHxD * jax.lax.rsqrt(jnp.maximum(degree_BxHx1, 1))
        return users_BxHxD.astype(history_BxHxD.dtype)
