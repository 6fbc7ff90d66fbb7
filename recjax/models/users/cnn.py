"""Dilated causal convolutions over the history."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.layers.dropout import Dropout


class CnnTower(nn.Module):
    """Residual blocks of two dilated causal convolutions each.

    The dilation doubles from one to the next (Yuan et al., NextItNet, 2019).
    """

    num_layers: int
    kernel_size: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self, history_BxHxD: jax.Array, mask_BxH: jax.Array, train: bool
    ) -> jax.Array:
        """users_BxHxD; position h sees the items up to h."""
        mask_BxHx1 = mask_BxH[..., None]
        x = Dropout(self.dropout)(history_BxHxD, train)
        for i in range(self.num_layers):
            y = x
            for j in range(2):
                y = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}_{j}")(y)
                y = jnp.where(mask_BxHx1, y, 0)  # as the zeros before the history
                y = look_back(y, self.kernel_size, dilation=2 ** (2 * i + j))
                name = f"conv_{i}_{j}"
                y = nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(y)
                y = jax.nn.relu(y)
            x = x + Dropout(self.dropout)(y, train)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)


def look_back(x_BxHxD: jax.Array, kernel_size: int, dilation: int) -> jax.Array:
    """Concatenates each position's vector with those 1, 2, .. dilations earlier.

    A dense layer over the result is a dilated causal convolution.
    """
    length = x_BxHxD.shape[1]
    parts = []
    for k in range(kernel_size):
        back = min(k * dilation, length)
        padding = ((0, 0), (back, 0), (0, 0))
        parts.append(jnp.pad(x_BxHxD, padding)[:, :length])
    return jnp.concatenate(parts, axis=-1)
