"""Operations on vectors that several packages share."""

import jax
import jax.numpy as jnp


def unit_vectors(x_xD: jax.Array) -> jax.Array:
    """Scales vectors to length one, in float32; a zero vector stays zero."""
    x_xD = x_xD.astype(jnp.float32)
    square = jnp.sum(x_xD * x_xD, axis=-1, keepdims=True)
    return x_xD * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
