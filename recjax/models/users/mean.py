"""The mean of the history."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class MeanTower(nn.Module):
    """Running mean of the history's vectors; no parameters."""

    @nn.compact
    def __call__(
        self, history_BxHxD: jax.Array, mask_BxH: jax.Array, train: bool
    ) -> jax.Array:
        """users_BxHxD; position h sees the items up to h."""
        del train
        mask_BxHx1 = mask_BxH[..., None].astype(jnp.float32)  # accumulate in float32
        total_BxHxD = jnp.cumsum(history_BxHxD * mask_BxHx1, axis=1)
        users_BxHxD = total_BxHxD / jnp.maximum(jnp.cumsum(mask_BxHx1, axis=1), 1)
        return users_BxHxD.astype(history_BxHxD.dtype)
