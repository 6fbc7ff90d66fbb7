"""Operations on vectors that several packages share."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)
MIN_SQUARED_LENGTH = 1e-12  # shorter vectors stay shorter than one


def unit_vectors(vectors_xD: Array) -> Array:
    """Scales vectors to length one, in float32; a zero vector stays zero."""
    xp = jnp if isinstance(vectors_xD, jax.Array) else np
    vectors_xD = vectors_xD.astype(np.float32)
    squares_x1 = xp.sum(vectors_xD * vectors_xD, axis=-1, keepdims=True)
    unit_xD: Array = vectors_xD / xp.sqrt(xp.maximum(squares_x1, MIN_SQUARED_LENGTH))
    return unit_xD
