"""What the propagated items of a history say of its user."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class GraphTower(nn.Module):
    """Normalised sum of the history's vectors, as LightGCN makes a user of neighbours.

    The vectors come from `graph.propagate`, which has divided them by the root of the
    item's degree (He et al., LightGCN, 2020, equation 3).
    """

    @nn.compact
    def __call__(
        self, history_BxHxD: jax.Array, mask_BxH: jax.Array, train: bool
    ) -> jax.Array:
        """users_BxHxD; position h sees the items up to h."""
        del train
        there_BxHx1 = mask_BxH[..., None].astype(jnp.float32)  # sums need its digits
        total_BxHxD = jnp.cumsum(history_BxHxD * there_BxHx1, axis=1)
        degree_BxHx1 = jnp.cumsum(there_BxHx1, axis=1)
        users_BxHxD = total_BxHxD * jax.lax.rsqrt(jnp.maximum(degree_BxHx1, 1))
        return users_BxHxD.astype(history_BxHxD.dtype)
