"""Heads: the score of a user vector and an item vector, always as a dot product."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from recjax.common.vectors import MIN_SQUARED_LENGTH

FUSION_WEIGHTS = "late_fusion/weights"  # path of the parameter of `FusionWeights`
EVENT_BIAS = "event_bias/values"  # path of the parameter of `EventBias`
SEEN_BIAS = "seen_bias/value"  # path of the parameter of `SeenBias`
# Tuned on validation, not by gradients.
TUNED = (FUSION_WEIGHTS, EVENT_BIAS, SEEN_BIAS)
# The groups of items whose biases are tuned, by key of the config's section `head`.
BIASED_GROUPS = {"event_bias": ("new", "cold"), "seen_bias": ("seen",)}


class TwoTowerHead(nn.Module):
    """Cosine similarity divided by a learned temperature, plus an optional bias."""

    num_items: int
    temperature: float
    has_bias: bool = False

    def setup(self) -> None:
        # Learned as a logarithm, as in CLIP (Radford et al., 2021): steps are relative,
        # and the scale stays positive.
        init = nn.initializers.constant(-jnp.log(self.temperature))
        self.log_scale = self.param("log_scale", init, ())
        if self.has_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (self.num_items,))

    def queries(self, users_xD: Array) -> Array:
        return _unit_vectors(users_xD) * jnp.exp(self.log_scale)

    def candidates(self, vectors_UxD: Array, items_U: Array) -> tuple[Array, Array]:
        shape = items_U.shape
        bias_U = self.bias[items_U] if self.has_bias else jnp.zeros(shape, jnp.float32)
        return _unit_vectors(vectors_UxD), bias_U


class SoftmaxHead(nn.Module):
    """Bilinear scores `u W v + b` with a bias per item."""

    num_items: int
    temperature: float
    has_bias: bool = True

    def setup(self) -> None:
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_items,))
        self.bilinear = Bilinear()

    def queries(self, users_xD: Array) -> Array:
        # float32: scores rank items, and bfloat16 would make many of them equal.
        return self.bilinear(users_xD.astype(jnp.float32)) / self.temperature

    def candidates(self, vectors_UxD: Array, items_U: Array) -> tuple[Array, Array]:
        return vectors_UxD.astype(jnp.float32), self.bias[items_U]


class FusionWeights(nn.Module):
    """Weights of M baselines' scores, which are added to the model's.

    They are tuned by grid search on validation, not by gradients, see `ScoreFusion`.
    """

    num_fused: int

    @nn.compact
    def __call__(self) -> Array:
        return self.param("weights", nn.initializers.zeros, (self.num_fused,))


class EventBias(nn.Module):
    """Biases of new and of cold items, which training underrates.

    They are tuned by grid search on validation, not by gradients, as in calibrated
    stacking (Chao et al., An empirical study and analysis of generalized zero-shot
    learning, 2016).
    """

    @nn.compact
    def __call__(self) -> Array:
        """Returns the biases of new, cold and warm items, of which the last is 0."""
        values_2 = self.param("values", nn.initializers.zeros, (2,))
        return jnp.append(values_2, 0)


class SeenBias(nn.Module):
    """Bias of the items of the history, where these may be recommended.

    How often users choose an item again differs between training and later times, and
    the items of the history are the most similar ones to it. Tuned like `EventBias`.
    """

    @nn.compact
    def __call__(self, scores_BxN: Array, history_BxH: Array, mask_BxH: Array) -> Array:
        """Adds the bias to the scores of the history's items, once to each."""
        value_1 = self.param("value", nn.initializers.zeros, (1,))
        user_Bx1 = jnp.arange(len(scores_BxN))[:, None]
        index_BxH = jnp.where(mask_BxH, history_BxH, scores_BxN.shape[1])
        # Set, and not added: an item may be in the history several times.
        biased_BxH = (
            scores_BxN[user_Bx1, jnp.where(mask_BxH, history_BxH, 0)] + value_1[None]
        )
        return scores_BxN.at[user_Bx1, index_BxH].set(biased_BxH, mode="drop")


class Bilinear(nn.Module):
    """Square matrix that starts as the identity, so scores start as dot products."""

    @nn.compact
    def __call__(self, x_xD: Array) -> Array:
        return x_xD @ self.param("kernel", lambda _: jnp.eye(x_xD.shape[-1]))


# Called with N, `head.temperature` and `head.bias`. `queries` maps user vectors to
# queries, and `candidates` item vectors and their indices to candidates_UxD and bias_U.
HEADS: dict[str, Callable[[int, float, bool], nn.Module]] = {
    "two_tower": TwoTowerHead,
    "softmax": SoftmaxHead,
}


def _unit_vectors(x_xD: Array) -> Array:
    """Scales vectors to length one, in float32; a zero vector stays zero."""
    # Differs from `common.vectors.unit_vectors` in the last bits: in a train step one
    # multiplication per feature is cheaper than a division.
    x_xD = x_xD.astype(jnp.float32)
    square = jnp.sum(x_xD * x_xD, axis=-1, keepdims=True)
    return x_xD * jax.lax.rsqrt(jnp.maximum(square, MIN_SQUARED_LENGTH))
