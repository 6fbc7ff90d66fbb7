"""Heads: how a user vector and an item vector make a score."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

FUSION_WEIGHTS = "late_fusion/weights"  # path of a parameter, see `MemoryWeights`


class TwoTowerHead(nn.Module):
    """Cosine similarity divided by a learned temperature."""

    num_items: int
    temperature: float

    def setup(self) -> None:
        init = nn.initializers.constant(-jnp.log(self.temperature))
        self.log_scale = self.param("log_scale", init, ())

    def queries(self, users_xD: jax.Array) -> jax.Array:
        """User vectors -> what is multiplied with the candidates."""
        return unit_vectors(users_xD) * jnp.exp(self.log_scale)

    def candidates(
        self, vectors_UxD: jax.Array, items_U: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Item vectors -> candidates_UxD and bias_U."""
        return unit_vectors(vectors_UxD), jnp.zeros(items_U.shape, jnp.float32)


class SoftmaxHead(nn.Module):
    """Bilinear scores `u W v + b` with a bias per item."""

    num_items: int
    temperature: float

    def setup(self) -> None:
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_items,))
        self.bilinear = Bilinear()

    def queries(self, users_xD: jax.Array) -> jax.Array:
        """User vectors -> what is multiplied with the candidates."""
        return self.bilinear(users_xD.astype(jnp.float32)) / self.temperature

    def candidates(
        self, vectors_UxD: jax.Array, items_U: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Item vectors -> candidates_UxD and bias_U."""
        return vectors_UxD.astype(jnp.float32), self.bias[items_U]


class FusionWeights(nn.Module):
    """What M baselines' scores are multiplied with before they are added.

    Chosen by validation, not by a gradient; see `memory.Memory`.
    """

    num_fused: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """weights_M."""
        shape = (self.num_fused,)
        weights_M: jax.Array = self.param("weights", nn.initializers.zeros, shape)
        return weights_M


def combine_scores(weights_M: jax.Array, baseline_scores_BxMxN: jax.Array) -> jax.Array:
    """The weighted sum of what M baselines say: fused_scores_BxN."""
    return jnp.einsum("m,bmn->bn", weights_M, baseline_scores_BxMxN)


class Bilinear(nn.Module):
    """Square matrix that starts as the identity: the plain dot product."""

    @nn.compact
    def __call__(self, x_xD: jax.Array) -> jax.Array:
        """X W."""

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            del key
            return jnp.eye(shape[0])

        width = x_xD.shape[-1]
        return x_xD @ self.param("kernel", init, (width, width))


HEADS: dict[str, Callable[[int, float], nn.Module]] = {
    "two_tower": TwoTowerHead,
    "softmax": SoftmaxHead,
}


def unit_vectors(x_xD: jax.Array) -> jax.Array:
    """Rows of length one, in float32; a zero row stays zero."""
    x_xD = x_xD.astype(jnp.float32)
    square = jnp.sum(x_xD * x_xD, axis=-1, keepdims=True)
    return x_xD * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
