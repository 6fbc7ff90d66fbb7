"""Dilated causal convolutions over the history."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

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
    def __call__(self, history_BxHxD: Array, mask_BxH: Array, train: bool) -> Array:
        mask_BxHx1 = mask_BxH[..., None]
        x = Dropout(self.dropout)(history_BxHxD, train)
        for i in range(self.num_layers):
            y = x
            for j in range(2):
                y = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}_{j}")(y)
                y = jnp.where(mask_BxHx1, y, 0)  # like the zeros before the history
                y = look_back(y, self.kernel_size, dilation=2 ** (2 * i + j))
                conv = nn.Dense(x.shape[-1], dtype=self.dtype, name=f"conv_{i}_{j}")
                y = jax.nn.relu(conv(y))
            x = x + Dropout(self.dropout)(y, train)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)


def look_back(x_BxHxD: Array, kernel_size: int, dilation: int) -> Array:
    """Concatenates each position's vector with those 1, 2, .. dilations earlier.

    A dense layer over the result is a dilated causal convolution.
    """
    length = x_BxHxD.shape[1]
    parts = []
    for k in range(kernel_size):
        back = min(k * dilation, length)
        parts.append(jnp.pad(x_BxHxD, ((0, 0), (back, 0), (0, 0)))[:, :length])
    return jnp.concatenate(parts, axis=-1)
