"""Binary losses: BCE and gBCE over items, and a loss of likes and dislikes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from recjax.losses.base import LossInputs, is_target


def bce(
    inputs: LossInputs, *, num_negatives: int = 1, beta: float = 1.0, chunk: int = 1024
) -> Array:
    """Binary cross-entropy of the target against k negatives: loss_P.

    `-beta log sigmoid(s_target) + k mean over u of softplus(s_u)`, where the mean is
    over all candidates but the target and weighted by w. It is the expectation of the
    usual loss, which samples k negatives per target from the same distribution, and has
    a lower variance. With logQ the weights cancel the sampling probabilities: the
    negatives represent the entire catalogue, however they were sampled. Without it
    popular items are negatives as often as the sampling distribution makes them.

    The scores s are shifted by log(beta / k). BCE and gBCE as published lack the shift,
    which changes no rank. No more than P x `chunk` scores exist at a time.
    """
    inputs = inputs.clean()
    # The shift is the constant score with the lowest loss: training starts from the
    # ratio of targets to negatives and does not have to learn it first (Lin et al.,
    # Focal Loss, 2017, section 3.3).
    inputs = inputs._replace(bias_U=inputs.bias_U + math.log(beta / num_negatives))
    size = min(chunk, len(inputs.bias_U))
    padding = (0, -len(inputs.bias_U) % size)
    # Padded candidates have weight 0 and thus no effect on either sum.
    weight_U = jnp.exp(jnp.pad(inputs.log_weight_U, padding, constant_values=-jnp.inf))
    candidates_UxD = jnp.pad(inputs.candidates_UxD, (padding, (0, 0)))
    bias_U = jnp.pad(inputs.bias_U, padding)

    # Recomputed in the backward pass: otherwise the scan would keep every chunk's
    # scores, all P x U of them.
    @jax.checkpoint
    def accumulate(sums: Any, start: Array) -> Any:
        candidates_CxD, bias_C, weight_C = (
            jax.lax.dynamic_slice_in_dim(x, start, size)
            for x in (candidates_UxD, bias_U, weight_U)
        )
        scores_PxC = inputs.queries_PxD @ candidates_CxD.T + bias_C[None]
        others_PxC = jnp.where(
            is_target(inputs.targets_P, start, size), 0.0, weight_C[None]
        )
        cost_P = (others_PxC * jax.nn.softplus(scores_PxC)).sum(-1)
        return (sums[0] + cost_P, sums[1] + others_PxC.sum(-1)), None

    zeros_P = jnp.zeros(len(inputs.targets_P))
    starts = jnp.arange(0, len(bias_U), size)
    (cost_P, weight_P), _ = jax.lax.scan(accumulate, (zeros_P, zeros_P), starts)
    negative_P = num_negatives * cost_P / jnp.maximum(weight_P, 1e-30)
    positive_P = beta * jax.nn.softplus(-inputs.target_scores())
    return jnp.where(inputs.mask_P, positive_P + negative_P, 0.0)


def gbce_beta(num_negatives: int, calibration: float, num_items: int) -> float:
    """Weight of the target in gBCE (Petrov and Macdonald, gSASRec, 2023, equation 10).

    `alpha (t (1 - 1 / alpha) + 1 / alpha)` with the sampling rate `alpha = k / (N - 1)`
    and the calibration t: 0 gives 1, plain BCE; 1 gives alpha.
    """
    alpha = num_negatives / max(num_items - 1, 1)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def rating(inputs: LossInputs) -> Array:
    """Binary cross-entropy of whether each target was liked: loss_P.

    It is 0 where that is unknown.
    """
    inputs = inputs.clean()
    assert inputs.label_P is not None
    label_P = inputs.label_P.astype(jnp.float32)
    cost_P = optax.sigmoid_binary_cross_entropy(inputs.target_scores(), label_P)
    return jnp.where(inputs.mask_P & (label_P >= 0), cost_P, 0.0)
