"""Softmax cross-entropy over many candidates, in chunks: one loss per target."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from recjax.losses.base import LossInputs, is_target


def softmax(inputs: LossInputs, *, smoothing: float = 0.0, chunk: int = 1024) -> Array:
    """Cross-entropy over U candidates: loss_P.

    The partition sum is `exp(s_target) + sum over other u of w_u exp(s_u)`. With w = 1
    over the entire catalogue this is the full softmax. With w_u = c_u it is the plain
    in-batch or sampled softmax with accidental hits removed; with w_u = c_u / E[c_u]
    its sum is unbiased over batches. Other targets of the same user count as negatives.

    Label smoothing (Szegedy et al., 2016) takes a fraction of the target's label and
    distributes it over the candidates in proportion to w. A target with weight 0 still
    counts as a target. No more than P x `chunk` scores exist at a time.
    """
    inputs = inputs.clean()
    loss_P = _cross_entropy(chunk, *inputs[:6])
    if smoothing:
        # The smoothing term is linear in the scores, so the mean score over the
        # candidates is the score of the mean candidate: no P x U array is needed.
        weight_U = jax.nn.softmax(inputs.log_weight_U)
        margin_PxD = inputs.candidates_UxD[inputs.targets_P]
        margin_PxD -= (weight_U @ inputs.candidates_UxD)[None]
        margin_P = inputs.bias_U[inputs.targets_P] - weight_U @ inputs.bias_U
        margin_P += (inputs.queries_PxD * margin_PxD).sum(-1)
        loss_P += smoothing * jnp.where(inputs.mask_P, margin_P, 0.0)
    return loss_P


# The gradient is written by hand, so that no more than `chunk` columns of the P x U
# scores exist at a time, in the backward pass as well: it computes the exponentials a
# second time, which costs less than writing them to memory and reading them back.
#
# With probabilities p_u = w_u exp(s_u - log_sum) and p_target = exp(s_target - log_sum)
# the gradient of a loss with respect to its scores is p - one_hot(target).
#
# Queries get a last column of ones, and candidates one with bias + log w (F = D + 1),
# so that one matrix product gives the weighted score, and one in the backward pass the
# gradients of candidates and bias together.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(chunk: int, *args: Array) -> Array:
    return _cross_entropy_fwd(chunk, *args)[0]


def _cross_entropy_fwd(chunk: int, *args: Array) -> tuple[Array, Any]:
    """Returns loss_P and the residuals of the backward pass."""
    queries_PxD, candidates_UxD, bias_U, targets_P, mask_P, log_weight_U = args
    # The target's score comes without log w: its own term has weight 1.
    target_P = (queries_PxD * candidates_UxD[targets_P]).sum(-1) + bias_U[targets_P]
    queries_PxF = jnp.pad(queries_PxD, ((0, 0), (0, 1)), constant_values=1.0)
    # Finite, because a matrix product turns 0 * -inf into NaN.
    offset_U = jnp.maximum(bias_U + log_weight_U, -1e30)

    def accumulate(carry: Any, start: Array | int, size: int) -> Any:
        # Online log-sum-exp: the running sum is rescaled when a chunk raises the
        # maximum (Milakov and Gimelshein, Online normalizer calculation, 2018).
        max_P, sum_P = carry
        scores_PxC = queries_PxF @ _slice(candidates_UxD, offset_U, start, size).T
        higher_P = jnp.maximum(max_P, scores_PxC.max(axis=-1))
        exp_PxC = jnp.exp(scores_PxC - higher_P[:, None])
        exp_PxC = jnp.where(is_target(targets_P, start, size), 0.0, exp_PxC)
        return higher_P, sum_P * jnp.exp(max_P - higher_P) + exp_PxC.sum(axis=-1)

    # The sum begins with the target's own term, exp(target - max) = 1.
    initial = (target_P, jnp.ones_like(target_P))
    max_P, sum_P = _for_chunks(len(bias_U), chunk, accumulate, initial)
    log_sum_P = jnp.log(sum_P) + max_P
    loss_P = jnp.where(mask_P, log_sum_P - target_P, 0.0)
    residuals = queries_PxF, candidates_UxD, offset_U, targets_P, mask_P
    return loss_P, (*residuals, log_sum_P, target_P)


def _cross_entropy_bwd(
    chunk: int, residuals: Any, grad_P: Array
) -> tuple[Array | None, ...]:
    """Returns the gradients of queries, candidates and bias."""
    queries_PxF, candidates_UxD, offset_U, targets_P, mask_P, *scores = residuals
    log_sum_P, target_P = scores
    grad_P = jnp.where(mask_P, grad_P, 0.0)
    # XLA on CPU multiplies by a transposed P x C matrix at a third of the speed, and
    # with the transposed queries at full speed. Without the barriers it would rewrite
    # the second form into the first.
    barrier = jax.lax.optimization_barrier
    queries_FxP = barrier(queries_PxF.T)

    def accumulate(carry: Any, start: Array | int, size: int) -> Any:
        d_queries_PxD, d_candidates_UxD, d_bias_U = carry
        part_CxF = _slice(candidates_UxD, offset_U, start, size)
        prob_PxC = jnp.exp(queries_PxF @ part_CxF.T - log_sum_P[:, None])
        prob_PxC = jnp.where(
            is_target(targets_P, start, size), 0.0, prob_PxC * grad_P[:, None]
        )
        d_part_CxF = barrier(queries_FxP @ prob_PxC).T
        # Each chunk owns its rows of the candidates' gradients, so they are written
        # and not added; the queries' gradients are a sum over chunks.
        return (
            d_queries_PxD + prob_PxC @ part_CxF[:, :-1],
            _update_slice(d_candidates_UxD, d_part_CxF[:, :-1], start),
            _update_slice(d_bias_U, d_part_CxF[:, -1], start),
        )

    # Chunks leave out the targets' own scores. Several queries may share a target, so
    # the gradients of targets are added after the chunks have written theirs.
    d_target_P = (jnp.exp(target_P - log_sum_P) - 1) * grad_P
    d_queries_PxD = candidates_UxD[targets_P] * d_target_P[:, None]
    sums = (d_queries_PxD, jnp.zeros_like(candidates_UxD), jnp.zeros_like(offset_U))
    d_queries_PxD, d_candidates_UxD, d_bias_U = _for_chunks(
        len(offset_U), chunk, accumulate, sums
    )
    d_own_PxD = queries_PxF[:, :-1] * d_target_P[:, None]
    d_candidates_UxD = d_candidates_UxD.at[targets_P].add(d_own_PxD)
    d_bias_U = d_bias_U.at[targets_P].add(d_target_P)
    # None: targets, mask and weights are data and get no gradient.
    return d_queries_PxD, d_candidates_UxD, d_bias_U, None, None, None


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)
_update_slice = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0)


def _for_chunks(
    length: int, size: int, body: Callable[[Any, Any, int], Any], carry: Any
) -> Any:
    """Calls `body(carry, start, size)` for every chunk; the last may be shorter."""
    num_full, rest = divmod(length, size)
    if num_full > 1:
        carry = jax.lax.fori_loop(
            0, num_full, lambda i, c: body(c, i * size, size), carry
        )
    elif num_full:
        # Not a loop: with a constant start XLA drops the slices and updates.
        carry = body(carry, 0, size)
    return body(carry, num_full * size, rest) if rest else carry


def _slice(
    candidates_UxD: Array, offset_U: Array, start: Array | int, size: int
) -> Array:
    """A chunk of candidates, with the offset of their scores as the last column."""
    part_CxD, offset_C = (
        jax.lax.dynamic_slice_in_dim(x, start, size) for x in (candidates_UxD, offset_U)
    )
    return jnp.concatenate([part_CxD, offset_C[:, None]], axis=1)
