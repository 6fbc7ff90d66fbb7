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
        self,
        x_BxHxD: jax.Array,
        mask_BxHxH: jax.Array,
        bias_1xAxHxH: jax.Array | None,
        train: bool,
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
        x_BxHxD += drop(attention(y, mask_BxHxH, train, bias_1xAxHxH))
        y = nn.LayerNorm(dtype=self.dtype, name="mlp_norm")(x_BxHxD)
        y = nn.Dense(self.mlp_ratio * width, dtype=self.dtype, name="mlp_up")(y)
        y = drop(jax.nn.gelu(y))
        y = nn.Dense(width, dtype=self.dtype, name="mlp_down")(y)
        return x_BxHxD + drop(y)


class AgeBias(nn.Module):
    """Learned attention bias per head and age, the number of events since the item.

    Starts with heads that forget at different rates (Press et al., ALiBi, 2022).
    """

    num_heads: int
    length: int

    @nn.compact
    def __call__(self, length: int) -> jax.Array:
        """bias_1xAxHxH for A heads and the newest `length` events."""

        def init(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
            del key
            slope_A = 0.5 ** (1.0 + jnp.arange(shape[0]))
            return -slope_A[:, None] * jnp.arange(shape[1])[None]

        age_AxH = self.param("bias", init, (self.num_heads, self.length))
        place_H = jnp.arange(length)
        age_HxH = jnp.maximum(place_H[:, None] - place_H[None], 0)
        return age_AxH[:, age_HxH][None]


class TransformerTower(nn.Module):
    """Causal transformer over the history (Kang and McAuley, SASRec, 2018).

    Attributes:
      position: 'absolute' adds a learned vector per place, as SASRec does;
        'relative' biases the attention by age.
      length: of the longest history; the last place is the newest event's.
    """

    position: str
    length: int
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
        x, bias = history_BxHxD, None
        if self.position == "relative":
            bias = AgeBias(self.num_heads, self.length, name="age")(length)
        else:
            init = nn.initializers.normal(0.02)
            position_HxD = self.param("position", init, (self.length, width))
            x = x + position_HxD[None, -length:].astype(self.dtype)
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
            x = block(x, mask_BxHxH, bias, train)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)


POSITIONS = ("absolute", "relative")
# A history without its padding must give the same: evaluation cuts it off.
USER_TOWERS: dict[str, Callable[[Any, int, Any], nn.Module]] = {
    "mean": lambda c, length, dtype: MeanTower(),
    "transformer": lambda c, length, dtype: TransformerTower(
        c.position, length, c.num_layers, c.num_heads, c.mlp_ratio, c.dropout, dtype
    ),
}
