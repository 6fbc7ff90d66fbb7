"""Multi-head attention as BERT and the user tower share it."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.layers.dropout import Dropout

Initializer = Callable[..., jax.Array]


class LoRAKernel(nn.Module):
    """Parameters of an `nn.Dense` that somebody else multiplies with.

    With a rank its kernel is W + alpha / rank * A B, B zero at first (Hu et al., LoRA,
    2022, section 4.1).
    """

    width: int
    kernel_init: Initializer
    lora_rank: int = 0
    lora_alpha: float = 1.0

    @nn.compact
    def __call__(self, num_inputs: int) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias."""
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

    Attributes:
      num_heads: divides the width of the input.
      dropout: of the attention weights.
      dtype: of the computation; parameters stay float32, the softmax too.
      kernel_init: draws the kernels.
      lora_rank: of what is added to the kernels of query and value; 0 = nothing.
      lora_alpha: see `Affine`.
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
        x_BxLxD: jax.Array,
        mask_BxLxL: jax.Array,
        train: bool,
        bias_1xAxLxL: jax.Array | None = None,
    ) -> jax.Array:
        """Attends where the mask (query x key) is True; the bias adds to A heads."""
        width = x_BxLxD.shape[-1]
        # One product for the three is faster than three.
        ranks = {"query": self.lora_rank, "key": 0, "value": self.lora_rank}
        affine = [
            LoRAKernel(width, self.kernel_init, rank, self.lora_alpha, name=name)(width)
            for name, rank in ranks.items()
        ]
        kernel, bias = (
            jnp.concatenate(parts, axis=-1).astype(self.dtype)
            for parts in zip(*affine, strict=True)
        )
        y = x_BxLxD.astype(self.dtype) @ kernel + bias[None, None]
        y = y.reshape(*y.shape[:-1], 3, self.num_heads, width // self.num_heads)
        query, key, value = y[:, :, 0], y[:, :, 1], y[:, :, 2]
        mask_Bx1xLxL = mask_BxLxL[:, None]
        if train and self.dropout:
            out = self._drop_out(query, key, value, mask_Bx1xLxL, bias_1xAxLxL)
        else:
            out = jax.nn.dot_product_attention(
                query, key, value, bias=bias_1xAxLxL, mask=mask_Bx1xLxL
            )
        out = out.reshape(*out.shape[:-2], width)
        dense = nn.Dense(
            width, dtype=self.dtype, kernel_init=self.kernel_init, name="output"
        )
        return dense(out)

    def _drop_out(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array,
        bias: jax.Array | None,
    ) -> jax.Array:
        """`jax.nn.dot_product_attention` with dropout on its weights."""
        logits = jnp.einsum(
            "bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32
        )
        logits *= query.shape[-1] ** -0.5
        if bias is not None:
            logits += bias
        logits = jnp.where(mask, logits, -1e30)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        weights = Dropout(self.dropout)(weights, train=True)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
