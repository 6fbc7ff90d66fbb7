"""The gated block of HSTU: attention without a softmax, and no MLP."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from recjax.models.layers.dropout import Dropout


class GatedBlock(nn.Module):
    """Pointwise aggregated attention (Zhai et al., Actions speak louder than words,
    ICML 2024, equations 1 to 3), after a norm and with a residual connection.

    Weights are SiLU(Q K^T + bias) / H and do not sum to one, so that the number of
    items that match is not lost. A gate takes the place of the MLP.

    Attributes:
      length: maximum history length H.
    """

    num_heads: int
    length: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x_BxHxD: Array,
        mask_BxHxH: Array,
        bias_BxAxHxH: Array | None,
        train: bool,
    ) -> Array:
        """Attends where the mask (query x key) is True."""
        width = x_BxHxD.shape[-1]
        y = nn.LayerNorm(dtype=self.dtype, name="input_norm")(x_BxHxD)
        y = jax.nn.silu(nn.Dense(4 * width, dtype=self.dtype, name="input")(y))
        gate_BxHxD, *attended = jnp.split(y, 4, axis=-1)
        heads = (*x_BxHxD.shape[:-1], self.num_heads, width // self.num_heads)
        value, query, key = (part.reshape(heads) for part in attended)
        logits = jnp.einsum(
            "bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32
        )
        if bias_BxAxHxH is not None:
            logits += bias_BxAxHxH
        weights = jnp.where(mask_BxHxH[:, None], jax.nn.silu(logits), 0) / self.length
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), value)
        mixed = mixed.reshape(x_BxHxD.shape)
        # The sums are small where histories are short, hence a smaller epsilon.
        norm = nn.LayerNorm(1e-8, dtype=self.dtype, name="output_norm")
        y = Dropout(self.dropout)(gate_BxHxD * norm(mixed), train)
        return x_BxHxD + nn.Dense(width, dtype=self.dtype, name="output")(y)
