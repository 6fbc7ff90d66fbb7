"""Transformers over the history: causal (SASRec, HSTU), bidirectional (BERT4Rec)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from recjax.models.layers.attention import Attention
from recjax.models.layers.causal_filter import CausalFilter
from recjax.models.layers.dropout import Dropout
from recjax.models.users.hstu import GatedBlock
from recjax.models.users.time_bias import RelativeTimeBias

FILTER_WINDOW = 8  # newest items in the moving average of the filter


class Block(nn.Module):
    """Pre-norm transformer block.

    Attributes:
      filter_share: weight of a `CausalFilter`, which is averaged with the attention;
        0 uses attention alone.
    """

    num_heads: int
    mlp_ratio: int
    dropout: float
    dtype: Any
    filter_share: float = 0.0

    @nn.compact
    def __call__(
        self,
        x_BxHxD: Array,
        mask_BxH: Array,
        mask_BxHxH: Array,
        bias_BxAxHxH: Array | None,
        train: bool,
    ) -> Array:
        width = x_BxHxD.shape[-1]
        dropout: Callable[..., Array] = Dropout(self.dropout)
        drop = partial(dropout, train=train)
        y = nn.LayerNorm(dtype=self.dtype, name="attention_norm")(x_BxHxD)
        options = self.num_heads, self.dropout, self.dtype
        attention = Attention(*options, name="attention")
        mixed = attention(y, mask_BxHxH, train, bias_BxAxHxH)
        if self.filter_share:
            filtered = CausalFilter(FILTER_WINDOW, name="filter")(y, mask_BxH)
            mixed = (1 - self.filter_share) * mixed + self.filter_share * filtered
        x_BxHxD += drop(mixed)
        y = nn.LayerNorm(dtype=self.dtype, name="mlp_norm")(x_BxHxD)
        y = nn.Dense(self.mlp_ratio * width, dtype=self.dtype, name="mlp_up")(y)
        y = drop(jax.nn.gelu(y))
        y = nn.Dense(width, dtype=self.dtype, name="mlp_down")(y)
        return x_BxHxD + drop(y)


class RelativePositionBias(nn.Module):
    """Learned attention bias per head and age, the number of events since the item.

    Initially the heads forget at different rates (Press et al., ALiBi, 2022). Newer
    items, which only a bidirectional tower sees, have negative ages.

    Attributes:
      decay: whether heads forget initially; otherwise the biases are zero.
    """

    num_heads: int
    length: int
    bidirectional: bool
    decay: bool = True

    @nn.compact
    def __call__(self, length: int) -> Array:
        """Returns bias_1xAxHxH for A heads and the newest `length` events."""
        min_age = 1 - self.length if self.bidirectional else 0

        def init(_: Array) -> Array:
            slope_A = self.decay * 0.5 ** (1.0 + jnp.arange(self.num_heads))
            return -slope_A[:, None] * jnp.abs(jnp.arange(min_age, self.length))[None]

        bias_by_age = self.param("bias", init)
        position_H = jnp.arange(length)
        # A causal tower has no bias for newer items; the mask hides them.
        age_HxH = jnp.maximum(position_H[:, None] - position_H[None], min_age)
        return bias_by_age[:, age_HxH - min_age][None]


class TransformerTower(nn.Module):
    """Transformer over the history: causal as SASRec (Kang and McAuley, 2018) or HSTU
    (Zhai et al., 2024), or bidirectional over a history with hidden items as BERT4Rec
    (Sun et al., 2019).

    Attributes:
      position: 'absolute' adds a learned vector per position, as SASRec does;
        'relative' biases the attention by age.
      length: maximum history length H; the last position is the newest event's.
      bidirectional: whether positions also see newer items, with a learned vector in
        place of hidden ones.
      filter_share: see `Block`.
      gated: whether the blocks are those of HSTU, see `GatedBlock`.
      time: whether attention is also biased by the time between events.
    """

    position: str
    length: int
    num_layers: int
    num_heads: int
    mlp_ratio: int
    dropout: float
    dtype: Any
    bidirectional: bool = False
    filter_share: float = 0.0
    gated: bool = False
    time: bool = False

    @nn.compact
    def __call__(
        self,
        history_BxHxD: Array,
        mask_BxH: Array,
        train: bool,
        hidden_BxH: Array | None = None,
        times_BxH: Array | None = None,
    ) -> Array:
        """Returns users_BxHxD; without `times_BxH` all times are unknown."""
        length, width = history_BxHxD.shape[1:]
        init = nn.initializers.normal(0.02)
        x = history_BxHxD
        if hidden_BxH is not None:
            hidden_D = self.param("hidden", init, (width,))
            hidden_1x1xD = hidden_D[None, None].astype(x.dtype)
            x = jnp.where(hidden_BxH[..., None], hidden_1x1xD, x)
        if self.position == "absolute":
            position_HxD = self.param("position", init, (self.length, width))
            # Counted from the newest event: cutting off padding changes nothing.
            x = x + position_HxD[None, -length:].astype(self.dtype)
        bias = self._attention_bias(length, times_BxH)
        x = Dropout(self.dropout)(x, train)
        mask_BxHxH = jnp.broadcast_to(mask_BxH[:, None], (x.shape[0], length, length))
        if not self.bidirectional:
            mask_BxHxH &= jnp.tril(jnp.ones((length, length), bool))[None]
        for i in range(self.num_layers):
            x = self._run_block(f"block_{i}", x, mask_BxH, mask_BxHxH, bias, train)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)

    def _attention_bias(self, length: int, times_BxH: Array | None) -> Array | None:
        """Returns the sum of the biases, bias_1xAxHxH or bias_BxAxHxH, if any."""
        bias = None
        if self.position == "relative":
            # Without a softmax, a large negative bias is not a small weight.
            shape = self.num_heads, self.length, self.bidirectional, not self.gated
            bias = RelativePositionBias(*shape, name="attention_bias")(length)
        if not self.time:
            return bias
        if times_BxH is None:
            times_BxH = jnp.full((1, length), -1)
        by_time = RelativeTimeBias(self.num_heads, name="time_bias")(times_BxH)
        return by_time if bias is None else bias + by_time

    def _run_block(
        self,
        name: str,
        x_BxHxD: Array,
        mask_BxH: Array,
        mask_BxHxH: Array,
        bias: Array | None,
        train: bool,
    ) -> Array:
        if self.gated:
            shape = self.num_heads, self.length, self.dropout, self.dtype
            return GatedBlock(*shape, name=name)(x_BxHxD, mask_BxHxH, bias, train)
        options = self.num_heads, self.mlp_ratio, self.dropout, self.dtype
        block = Block(*options, self.filter_share, name=name)
        return block(x_BxHxD, mask_BxH, mask_BxHxH, bias, train)
