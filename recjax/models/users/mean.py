"""Sums of the history's vectors: their mean, and the user vector of LightGCN."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class MeanTower(nn.Module):
    """Running mean of the history's vectors; no parameters."""

    @nn.compact
    def __call__(self, history_BxHxD: Array, mask_BxH: Array, train: bool) -> Array:
        total_BxHxD, count_BxHx1 = running_sums(history_BxHxD, mask_BxH)
        users_BxHxD = total_BxHxD / jnp.maximum(count_BxHx1, 1)
        return users_BxHxD.astype(history_BxHxD.dtype)


class GraphTower(nn.Module):
    """Sum of the history's vectors, divided by the root of the history's length.

    The vectors come from `graph.propagate`, which has divided them by the root of the
    item's degree; together this is a graph convolution (He et al., LightGCN, 2020,
    equation 3).
    """

    @nn.compact
    def __call__(self, history_BxHxD: Array, mask_BxH: Array, train: bool) -> Array:
        total_BxHxD, degree_BxHx1 = running_sums(history_BxHxD, mask_BxH)
        users_BxHxD = total_BxHxD * jax.lax.rsqrt(jnp.maximum(degree_BxHx1, 1))
        return users_BxHxD.astype(history_BxHxD.dtype)


def running_sums(history_BxHxD: Array, mask_BxH: Array) -> tuple[Array, Array]:
    """Returns the sum and the number of items of every prefix: BxHxD and BxHx1."""
    # float32: a long sum of bfloat16 numbers would lose digits.
    mask_BxHx1 = mask_BxH[..., None].astype(jnp.float32)
    total_BxHxD = jnp.cumsum(history_BxHxD * mask_BxHx1, axis=1)
    return total_BxHxD, jnp.cumsum(mask_BxHx1, axis=1)
