"""Multi-head self-attention, shared by the encoders and the user towers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from recjax.models.layers.dropout import Dropout

Initializer = Callable[..., Array]


class LoRAKernel(nn.Module):
    """Kernel and bias of a dense layer, returned so that the caller fuses the matmul.

    With a rank the kernel is W + alpha / rank * A B, with B initially zero (Hu et al.,
    LoRA, 2022, section 4.1).
    """

    width: int
    kernel_init: Initializer
    lora_rank: int = 0
    lora_alpha: float = 1.0

    @nn.compact
    def __call__(self, num_inputs: int) -> tuple[Array, Array]:
        shape = (num_inputs, self.width)
        kernel = self.param("kernel", self.kernel_init, shape)
        if rank := self.lora_rank:
            init = nn.initializers.normal(num_inputs**-0.5)
            lora_a = self.param("lora_a", init, (num_inputs, rank))
            lora_b = self.param("lora_b", nn.initializers.zeros, (rank, self.width))
            kernel += self.lora_alpha / rank * (lora_a @ lora_b)
        return kernel, self.param("bias", nn.initializers.zeros, (self.width,))


class Attention(nn.Module):
    """Self-attention with parameters `query`, `key`, `value`, `output`.

    `dropout` is the rate for the attention weights, and `lora_rank` the rank of the
    adapters of query and value, 0 for none. Parameters and softmax stay float32.
    """

    num_heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    lora_rank: int = 0
    lora_alpha: float = 1.0

    @nn.compact
    def __call__(
        self,
        x_BxLxD: Array,
        mask_BxLxL: Array,
        train: bool,
        bias_BxAxLxL: Array | None = None,
    ) -> Array:
        """Attends where the mask (query x key) is True.

        The bias is per head, and the same for all B if its first size is 1.
        """
        width = x_BxLxD.shape[-1]
        # One matmul for query, key and value is faster than three.
        ranks = {"query": self.lora_rank, "key": 0, "value": self.lora_rank}
        layers = [
            LoRAKernel(width, self.kernel_init, rank, self.lora_alpha, name=name)(width)
            for name, rank in ranks.items()
        ]
        kernel, bias = (
            jnp.concatenate(parts, axis=-1).astype(self.dtype)
            for parts in zip(*layers, strict=True)
        )
        y = x_BxLxD.astype(self.dtype) @ kernel + bias[None, None]
        y = y.reshape(*y.shape[:-1], 3, self.num_heads, width // self.num_heads)
        query, key, value = y[:, :, 0], y[:, :, 1], y[:, :, 2]
        # JAX's own attention has no dropout of the attention weights.
        drops = train and self.dropout
        attend = self._with_dropout if drops else jax.nn.dot_product_attention
        out = attend(query, key, value, bias=bias_BxAxLxL, mask=mask_BxLxL[:, None])
        out = out.reshape(*out.shape[:-2], width)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        return dense(width, name="output")(out)

    def _with_dropout(
        self, query: Array, key: Array, value: Array, *, bias: Array | None, mask: Array
    ) -> Array:
        """`jax.nn.dot_product_attention` with dropout on its weights."""
        logits = jnp.einsum(
            "bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32
        )
        logits *= query.shape[-1] ** -0.5
        if bias is not None:
            logits += bias
        # Finite: with -inf, the rows of padding, which have no True, would become NaN.
        logits = jnp.where(mask, logits, -1e30)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        weights = Dropout(self.dropout)(weights, train=True)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
