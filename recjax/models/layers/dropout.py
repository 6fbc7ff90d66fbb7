"""Dropout that draws one byte a decision."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Zeroes a share of the input and scales the rest up (Srivastava et al., 2014).

    Random bits are a real part of a small step's time on a CPU, and a byte is enough:
    the rate is rounded to a multiple of 1/256, and the scale is that of the rounded
    rate, so that the expectation is exact.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The input itself where `train` is False."""
        drops = round(256 * self.rate)
        if not train or drops == 0:
            return x
        bits = jax.random.bits(self.make_rng("dropout"), x.shape, jnp.uint8)
        scale = jnp.asarray(256 / (256 - drops), x.dtype)
        return jnp.where(bits >= drops, x * scale, jnp.zeros((), x.dtype))
