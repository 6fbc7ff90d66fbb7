"""Training losses: one value per user before any mean."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Loss = Callable[..., jax.Array]


def softmax(
    queries_BxTxD: jax.Array,
    candidates_UxD: jax.Array,
    bias_U: jax.Array,
    targets_BxT: jax.Array,
    mask_BxT: jax.Array,
    log_weight_U: jax.Array,
    *,
    smoothing: float = 0.0,
) -> jax.Array:
    """Cross-entropy over U candidates, summed over each user's targets: loss_B.

    The score of candidate u is `query . candidate_u + bias_u`, the partition sum is
    `exp(s_target) + sum over other u of w_u exp(s_u)`. With w = 1 over the whole
    catalogue this is the full softmax. In a batch where item u is a target c_u times,
    w_u = c_u is the plain in-batch softmax with accidental hits removed, and
    w_u = c_u / E[c_u] the logQ-corrected one (Bengio and Senecal, 2008; Yi et al.,
    2019), whose sum is unbiased over batches; a user's own targets are always there.

    Label smoothing (Szegedy et al., 2016) takes a share of the target's label and
    spreads it over the candidates by w.

    Args:
      queries_BxTxD: what is scored against the candidates.
      candidates_UxD, bias_U: the candidates.
      targets_BxT: index of each target among the candidates.
      mask_BxT: which targets count.
      log_weight_U: log w; -inf keeps a candidate out, unless it is the target.
      smoothing: the share, at least 0 and below 1.
    """
    shape, width = targets_BxT.shape, queries_BxTxD.shape[-1]
    # What stands where nothing counts may be anything; zero keeps the gradient clean.
    queries_BxTxD = jnp.where(mask_BxT[..., None], queries_BxTxD, 0)
    queries_PxD = queries_BxTxD.astype(jnp.float32).reshape(-1, width)
    candidates_UxD = candidates_UxD.astype(jnp.float32)
    targets_P, mask_P = targets_BxT.reshape(-1), mask_BxT.reshape(-1)
    loss_P = _cross_entropy(
        queries_PxD, candidates_UxD, bias_U, targets_P, mask_P, log_weight_U
    )
    if smoothing:
        # Linear in the scores: the mean score is the score of the mean candidate.
        share_U = jax.nn.softmax(log_weight_U)
        above_PxD = candidates_UxD[targets_P] - (share_U @ candidates_UxD)[None]
        above_P = bias_U[targets_P] - share_U @ bias_U
        above_P += (queries_PxD * above_PxD).sum(-1)
        loss_P += smoothing * jnp.where(mask_P, above_P, 0.0)
    return loss_P.reshape(shape).sum(axis=-1)


# XLA's own gradient of the lines below makes several passes over the P x U scores;
# written by hand it needs the exponentials once and two matrix products.


@jax.custom_vjp
def _cross_entropy(*args: jax.Array) -> jax.Array:
    return _cross_entropy_fwd(*args)[0]


def _cross_entropy_fwd(
    queries_PxD: jax.Array,
    candidates_UxD: jax.Array,
    bias_U: jax.Array,
    targets_P: jax.Array,
    mask_P: jax.Array,
    log_weight_U: jax.Array,
) -> tuple[jax.Array, Any]:
    scores_PxU = queries_PxD @ candidates_UxD.T + (bias_U + log_weight_U)[None]
    target_P = (queries_PxD * candidates_UxD[targets_P]).sum(-1) + bias_U[targets_P]
    most_P = jnp.maximum(scores_PxU.max(axis=-1), target_P)
    is_target = jnp.arange(len(bias_U))[None] == targets_P[:, None]
    exp_PxU = jnp.where(is_target, 0.0, jnp.exp(scores_PxU - most_P[:, None]))
    exp_target_P = jnp.exp(target_P - most_P)
    sum_P = exp_PxU.sum(axis=-1) + exp_target_P
    loss_P = jnp.where(mask_P, jnp.log(sum_P) + most_P - target_P, 0.0)
    kept = (queries_PxD, candidates_UxD, targets_P, mask_P, exp_PxU, sum_P)
    return loss_P, (*kept, exp_target_P)


def _cross_entropy_bwd(kept: Any, grad_P: jax.Array) -> tuple[jax.Array | None, ...]:
    queries, candidates, targets_P, mask_P, exp_PxU, sum_P, exp_target_P = kept
    grad_P = jnp.where(mask_P, grad_P, 0.0)
    scale_P = grad_P / sum_P
    push_P = exp_target_P * scale_P - grad_P  # of the target's own score
    prob_PxU = exp_PxU * scale_P[:, None]
    d_queries = prob_PxU @ candidates + candidates[targets_P] * push_P[:, None]
    d_candidates = prob_PxU.T @ queries
    d_candidates = d_candidates.at[targets_P].add(queries * push_P[:, None])
    d_bias = prob_PxU.sum(axis=0).at[targets_P].add(push_P)
    return d_queries, d_candidates, d_bias, None, None, None


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)

LOSSES: dict[str, Callable[[Any], Loss]] = {
    "softmax": lambda c: functools.partial(softmax, smoothing=c.smoothing),
}
NEGATIVES = ("all", "in_batch")
