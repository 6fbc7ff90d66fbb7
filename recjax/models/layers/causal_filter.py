"""A causal low-pass filter over a history."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class CausalFilter(nn.Module):
    """Divides a history into a moving average and the rest, and rescales the rest.

    BSARec (Shin et al., An attentive inductive bias for sequential recommendation,
    2024) takes low frequencies of the complete history, so that every position sees
    later items. This filter sees earlier items only, because all positions are trained
    at once.

    Attributes:
      window: newest items in the moving average, with learned weights per feature.
    """

    window: int

    @nn.compact
    def __call__(self, x_BxHxD: Array, mask_BxH: Array) -> Array:
        """Returns filtered_BxHxD; padding has no part in the averages."""
        length, width = x_BxHxD.shape[1:]
        zeros = nn.initializers.zeros
        log_weight = self.param("log_weight", zeros, (self.window, width))
        scale_D = self.param("scale", nn.initializers.normal(0.02), (width,))
        mask_BxHx1 = mask_BxH[..., None].astype(x_BxHxD.dtype)
        masked_BxHxD = x_BxHxD * mask_BxHx1
        sum_BxHxD, total_BxHxD = jnp.zeros_like(x_BxHxD), jnp.zeros_like(x_BxHxD)
        for age in range(min(self.window, length)):
            weight_1x1xD = jnp.exp(log_weight[age]).astype(x_BxHxD.dtype)[None, None]
            padding = ((0, 0), (age, 0), (0, 0))
            earlier = slice(0, length - age)
            sum_BxHxD += weight_1x1xD * jnp.pad(masked_BxHxD[:, earlier], padding)
            total_BxHxD += weight_1x1xD * jnp.pad(mask_BxHx1[:, earlier], padding)
        low_BxHxD = sum_BxHxD / jnp.maximum(total_BxHxD, 1e-6)
        scale_1x1xD = jnp.square(scale_D).astype(x_BxHxD.dtype)[None, None]
        return low_BxHxD + scale_1x1xD * (x_BxHxD - low_BxHxD)
