"""User towers: a history of item vectors -> one user vector per prefix."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.attention import Attention
from recjax.models.dropout import Dropout


class MeanTower(nn.Module):
    """Running mean of the history's vectors; no parameters."""

    @nn.compact
    def __call__(
        self, history_BxHxD: jax.Array, mask_BxH: jax.Array, train: bool
    ) -> jax.Array:
        """users_BxHxD; position h sees the items up to h."""
        del train
        mask_BxHx1 = mask_BxH[..., None].astype(history_BxHxD.dtype)
        total_BxHxD = jnp.cumsum(history_BxHxD * mask_BxHx1, axis=1)
        return total_BxHxD / jnp.maximum(jnp.cumsum(mask_BxHx1, axis=1), 1)


class Block(nn.Module):
    """Pre-norm transformer block."""

    num_heads: int
    mlp_ratio: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x_BxHxD: jax.Array, mask_BxHxH: jax.Array, train: bool
    ) -> jax.Array:
        """States in, states out."""
        width = x_BxHxD.shape[-1]
        dropout: Callable[..., jax.Array] = Dropout(self.dropout)

        def drop(y: jax.Array) -> jax.Array:
            return dropout(y, train)

        y = nn.LayerNorm(dtype=self.dtype, name="attention_norm")(x_BxHxD)
        attention = Attention(
            self.num_heads, self.dropout, self.dtype, name="attention"
        )
        x_BxHxD += drop(attention(y, mask_BxHxH, train))
        y = nn.LayerNorm(dtype=self.dtype, name="mlp_norm")(x_BxHxD)
        y = nn.Dense(self.mlp_ratio * width, dtype=self.dtype, name="mlp_up")(y)
        y = drop(jax.nn.gelu(y))
        y = nn.Dense(width, dtype=self.dtype, name="mlp_down")(y)
        return x_BxHxD + drop(y)


class TransformerTower(nn.Module):
    """Causal transformer over the history (Kang and McAuley, SASRec, 2018)."""

    num_layers: int
    num_heads: int
    mlp_ratio: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self, history_BxHxD: jax.Array, mask_BxH: jax.Array, train: bool
    ) -> jax.Array:
        """users_BxHxD; position h sees the items up to h."""
        _, length, width = history_BxHxD.shape
        init = nn.initializers.normal(0.02)
        position_HxD = self.param("position", init, (length, width))
        x = history_BxHxD + position_HxD[None].astype(self.dtype)
        x = Dropout(self.dropout)(x, train)
        causal_HxH = jnp.tril(jnp.ones((length, length), bool))
        mask_BxHxH = causal_HxH[None] & mask_BxH[:, None, :]
        for i in range(self.num_layers):
            block = Block(
                self.num_heads,
                self.mlp_ratio,
                self.dropout,
                self.dtype,
                name=f"block_{i}",
            )
            x = block(x, mask_BxHxH, train)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)


USER_TOWERS: dict[str, Callable[[Any, Any], nn.Module]] = {
    "mean": lambda c, dtype: MeanTower(),
    "transformer": lambda c, dtype: TransformerTower(
        c.num_layers, c.num_heads, c.mlp_ratio, c.dropout, dtype
    ),
}
