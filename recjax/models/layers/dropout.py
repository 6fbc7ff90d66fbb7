"""Dropout that draws one random byte per element."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Dropout(nn.Module):
    """Zeroes a fraction of the input and scales up the rest (Srivastava et al., 2014).

    Drawing random bits takes a noticeable part of a small step on a CPU, and a byte per
    element is enough: the rate is rounded to a multiple of 1/256, and the scale follows
    from the rounded rate, so that the expectation is exact.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        drops = round(256 * self.rate)
        if not train or drops == 0:
            return x
        bits = jax.random.bits(self.make_rng("dropout"), x.shape, jnp.uint8)
        scale = jnp.asarray(256 / (256 - drops), x.dtype)
        return jnp.where(bits >= drops, x * scale, jnp.zeros((), x.dtype))
