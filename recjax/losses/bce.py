"""Binary losses: BCE, gBCE and like-or-not."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from recjax.losses.base import LossInputs
from recjax.losses.softmax import _is_target


def bce(
    s: LossInputs, *, k: int = 1, beta: float = 1.0, chunk: int = 1024
) -> jax.Array:
    """Binary cross-entropy of the target against k negatives: loss_P.

    `-beta log sigmoid(s_target) + k mean over u of softplus(s_u)`, where the mean goes
    over the candidates other than the target by their weight w. That is what k
    negatives drawn for each target by the same chances cost on average, from more
    draws. With logQ the weights undo the chances of the draw: the negatives stand for
    the whole catalogue, however they were drawn; without it popular ones come more
    often where they are drawn so.

    The s above are the scores plus log(beta / k), the level at which the loss is least
    if all are equal: training starts from the shares of targets and negatives and need
    not find them first (Lin et al., Focal Loss, 2017, section 3.3). Neither BCE nor
    gBCE as published has it; ranks are the same with it and without.

    Args:
      s: what is compared.
      k: negatives per target.
      beta: weight of the target; see `gbce_beta`.
      chunk: candidates whose P x chunk scores are held at a time.
    """
    s = s.clean()
    s = s._replace(bias_U=s.bias_U + math.log(beta / k))
    size = min(chunk, len(s.bias_U))
    filling = (0, -len(s.bias_U) % size)
    weight_U = jnp.exp(jnp.pad(s.log_weight_U, filling, constant_values=-jnp.inf))
    candidates_UxD = jnp.pad(s.candidates_UxD, (filling, (0, 0)))
    bias_U = jnp.pad(s.bias_U, filling)

    @jax.checkpoint
    def add_up(sums: Any, start: jax.Array) -> Any:
        candidates_CxD, bias_C, weight_C = (
            jax.lax.dynamic_slice_in_dim(x, start, size)
            for x in (candidates_UxD, bias_U, weight_U)
        )
        scores_PxC = s.queries_PxD @ candidates_CxD.T + bias_C[None]
        others_PxC = jnp.where(
            _is_target(s.targets_P, start, size), 0.0, weight_C[None]
        )
        cost_P = (others_PxC * jax.nn.softplus(scores_PxC)).sum(-1)
        return (sums[0] + cost_P, sums[1] + others_PxC.sum(-1)), None

    zeros_P = jnp.zeros(len(s.targets_P))
    starts = jnp.arange(0, len(bias_U), size)
    (cost_P, weight_P), _ = jax.lax.scan(add_up, (zeros_P, zeros_P), starts)
    negative_P = k * cost_P / jnp.maximum(weight_P, 1e-30)
    positive_P = beta * jax.nn.softplus(-s.target_scores())
    return jnp.where(s.mask_P, positive_P + negative_P, 0.0)


def gbce_beta(k: int, calibration: float, num_items: int) -> float:
    """Weight of the target in gBCE (Petrov and Macdonald, gSASRec, 2023, equation 10).

    `alpha (t (1 - 1 / alpha) + 1 / alpha)` with the sampling rate `alpha = k / (N - 1)`
    and the calibration t: 0 gives 1, plain BCE; 1 gives alpha.
    """
    alpha = k / max(num_items - 1, 1)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def rating(s: LossInputs) -> jax.Array:
    """Binary cross-entropy of like or not, of the targets alone: loss_P."""
    assert s.label_P is not None
    s = s.clean()
    cost_P = optax.sigmoid_binary_cross_entropy(s.target_scores(), s.label_P)
    return jnp.where(s.mask_P, cost_P, 0.0)
