"""Heads: the score of a user vector and an item vector, always as a dot product."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.common.vectors import MIN_SQUARED_LENGTH

FUSION_WEIGHTS = "late_fusion/weights"  # path of the parameter of `FusionWeights`


class TwoTowerHead(nn.Module):
    """Cosine similarity divided by a learned temperature."""

    num_items: int
    temperature: float

    def setup(self) -> None:
        # Learned as a logarithm, as in CLIP (Radford et al., 2021): steps are relative,
        # and the scale stays positive.
        init = nn.initializers.constant(-jnp.log(self.temperature))
        self.log_scale = self.param("log_scale", init, ())

    def queries(self, users_xD: jax.Array) -> jax.Array:
        """User vectors -> queries, to multiply with the candidates."""
        return _unit_vectors(users_xD) * jnp.exp(self.log_scale)

    def candidates(
        self, vectors_UxD: jax.Array, items_U: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Item vectors -> candidates_UxD and bias_U."""
        return _unit_vectors(vectors_UxD), jnp.zeros(items_U.shape, jnp.float32)


class SoftmaxHead(nn.Module):
    """Bilinear scores `u W v + b` with a bias per item."""

    num_items: int
    temperature: float

    def setup(self) -> None:
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_items,))
        self.bilinear = Bilinear()

    def queries(self, users_xD: jax.Array) -> jax.Array:
        """User vectors -> queries, to multiply with the candidates."""
        # float32: scores rank items, and bfloat16 would make many of them equal.
        return self.bilinear(users_xD.astype(jnp.float32)) / self.temperature

    def candidates(
        self, vectors_UxD: jax.Array, items_U: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Item vectors -> candidates_UxD and bias_U."""
        return vectors_UxD.astype(jnp.float32), self.bias[items_U]


class FusionWeights(nn.Module):
    """Weights of M baselines' scores in the sum with the model's.

    Tuned on validation by grid search and not by gradients, see `ScoreFusion`.
    """

    num_fused: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """weights_M."""
        shape = (self.num_fused,)
        weights_M: jax.Array = self.param("weights", nn.initializers.zeros, shape)
        return weights_M


def combine_scores(weights_M: jax.Array, baseline_scores_BxMxN: jax.Array) -> jax.Array:
    """Weighted sum of M baselines' scores: fused_scores_BxN."""
    return jnp.einsum("m,bmn->bn", weights_M, baseline_scores_BxMxN)


class Bilinear(nn.Module):
    """Square matrix that starts as the identity, so scores start as dot products."""

    @nn.compact
    def __call__(self, x_xD: jax.Array) -> jax.Array:
        """Returns x W."""

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            del key
            return jnp.eye(shape[0])

        width = x_xD.shape[-1]
        return x_xD @ self.param("kernel", init, (width, width))


HEADS: dict[str, Callable[[int, float], nn.Module]] = {
    "two_tower": TwoTowerHead,
    "softmax": SoftmaxHead,
}


def _unit_vectors(x_xD: jax.Array) -> jax.Array:
    """Scales vectors to length one, in float32; a zero vector stays zero.

    Differs from `common.vectors.unit_vectors` in the last bits: in a train step one
    multiplication per feature is cheaper than a division.
    """
    x_xD = x_xD.astype(jnp.float32)
    square = jnp.sum(x_xD * x_xD, axis=-1, keepdims=True)
    return x_xD * jax.lax.rsqrt(jnp.maximum(square, MIN_SQUARED_LENGTH))
