"""Marks the items of a history that the user liked, and those that were not liked."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class RatingEmbedding(nn.Module):
    """Adds a learned vector to liked items, and another one to items rated lower.

    Both are zero at first. Items without a known rating are left as they are.
    """

    @nn.compact
    def __call__(
        self, history_BxHxD: Array, liked_BxH: Array, mask_BxH: Array
    ) -> Array:
        """Returns history_BxHxD with marks; `liked_BxH` is 1, 0, or -1 if unknown."""
        shape = 2, history_BxHxD.shape[-1]
        marks_2xD = self.param("marks", nn.initializers.zeros, shape)
        known_BxH = mask_BxH & (liked_BxH >= 0)
        marks_BxHxD = marks_2xD.astype(history_BxHxD.dtype)[jnp.maximum(liked_BxH, 0)]
        return history_BxHxD + jnp.where(known_BxH[..., None], marks_BxHxD, 0)
