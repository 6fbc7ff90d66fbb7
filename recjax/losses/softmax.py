"""Training losses: one value per target before any mean."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from recjax.losses.base import LossInputs


def softmax(s: LossInputs, *, smoothing: float = 0.0, chunk: int = 1024) -> jax.Array:
    """Cross-entropy over U candidates: loss_P.

    The partition sum is `exp(s_target) + sum over other u of w_u exp(s_u)`. With w = 1
    over the whole catalogue this is the full softmax. With w_u = c_u it is the plain
    in-batch or sampled softmax with accidental hits removed; with w_u = c_u / E[c_u]
    its sum is unbiased over batches. A user's own targets are always there.

    Label smoothing (Szegedy et al., 2016) takes a share of the target's label and
    spreads it over the candidates by w.

    Args:
      s: what is compared; a candidate with weight 0 counts if it is the target.
      smoothing: the share, at least 0 and below 1.
      chunk: candidates whose P x chunk scores are held at a time.
    """
    s = s.clean()
    loss_P = _cross_entropy(chunk, *s[:6])
    if smoothing:
        # Linear in the scores: the mean score is the score of the mean candidate.
        share_U = jax.nn.softmax(s.log_weight_U)
        above_PxD = s.candidates_UxD[s.targets_P]
        above_PxD -= (share_U @ s.candidates_UxD)[None]
        above_P = s.bias_U[s.targets_P] - share_U @ s.bias_U
        above_P += (s.queries_PxD * above_PxD).sum(-1)
        loss_P += smoothing * jnp.where(s.mask_P, above_P, 0.0)
    return loss_P


# The gradient is written by hand, so that no more than `chunk` columns of the P x U
# scores exist at a time, in the backward pass neither: their exponentials are computed
# again, which is cheaper than a trip through memory. Queries get a last column of ones
# and a chunk's candidates one with what is added to their score, so that one product
# gives the whole score, and one the gradients of candidates and bias.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(chunk: int, *args: jax.Array) -> jax.Array:
    return _cross_entropy_fwd(chunk, *args)[0]


def _cross_entropy_fwd(
    chunk: int,
    queries_PxD: jax.Array,
    candidates_UxD: jax.Array,
    bias_U: jax.Array,
    targets_P: jax.Array,
    mask_P: jax.Array,
    log_weight_U: jax.Array,
) -> tuple[jax.Array, Any]:
    target_P = (queries_PxD * candidates_UxD[targets_P]).sum(-1) + bias_U[targets_P]
    queries_PxF = jnp.pad(queries_PxD, ((0, 0), (0, 1)), constant_values=1.0)
    # Finite, because a product may add zero times it.
    offset_U = jnp.maximum(bias_U + log_weight_U, -1e30)

    def add_up(carry: Any, start: Any, size: int) -> Any:
        most_P, sum_P = carry
        scores_PxC = queries_PxF @ _part(candidates_UxD, offset_U, start, size).T
        higher_P = jnp.maximum(most_P, scores_PxC.max(axis=-1))
        exp_PxC = jnp.exp(scores_PxC - higher_P[:, None])
        exp_PxC = jnp.where(_is_target(targets_P, start, size), 0.0, exp_PxC)
        return higher_P, sum_P * jnp.exp(most_P - higher_P) + exp_PxC.sum(axis=-1)

    start = (target_P, jnp.ones_like(target_P))
    most_P, sum_P = _for_chunks(len(bias_U), chunk, add_up, start)
    log_sum_P = jnp.log(sum_P) + most_P
    loss_P = jnp.where(mask_P, log_sum_P - target_P, 0.0)
    kept = (
        queries_PxF,
        candidates_UxD,
        offset_U,
        targets_P,
        mask_P,
        log_sum_P,
        target_P,
    )
    return loss_P, kept


def _cross_entropy_bwd(
    chunk: int, kept: Any, grad_P: jax.Array
) -> tuple[jax.Array | None, ...]:
    queries_PxF, candidates_UxD, offset_U, targets_P, mask_P, log_sum_P, target_P = kept
    grad_P = jnp.where(mask_P, grad_P, 0.0)
    # XLA on CPU multiplies by a transposed P x C at a third of the speed, and with the
    # transposed queries at full speed. It would exchange the two without barriers.
    barrier = jax.lax.optimization_barrier
    queries_FxP = barrier(queries_PxF.T)

    def add_up(carry: Any, start: Any, size: int) -> Any:
        d_queries_PxD, d_candidates_UxD, d_bias_U = carry
        part_CxF = _part(candidates_UxD, offset_U, start, size)
        prob_PxC = jnp.exp(queries_PxF @ part_CxF.T - log_sum_P[:, None])
        prob_PxC = jnp.where(
            _is_target(targets_P, start, size), 0.0, prob_PxC * grad_P[:, None]
        )
        d_part_CxF = barrier(queries_FxP @ prob_PxC).T
        return (
            d_queries_PxD + prob_PxC @ part_CxF[:, :-1],
            _update_slice(d_candidates_UxD, d_part_CxF[:, :-1], start),
            _update_slice(d_bias_U, d_part_CxF[:, -1], start),
        )

    d_target_P = (
        jnp.exp(target_P - log_sum_P) - 1
    ) * grad_P  # of the target's own score
    d_queries_PxD = candidates_UxD[targets_P] * d_target_P[:, None]
    sums = (d_queries_PxD, jnp.zeros_like(candidates_UxD), jnp.zeros_like(offset_U))
    d_queries_PxD, d_candidates_UxD, d_bias_U = _for_chunks(
        len(offset_U), chunk, add_up, sums
    )
    push_PxD = queries_PxF[:, :-1] * d_target_P[:, None]
    d_candidates_UxD = d_candidates_UxD.at[targets_P].add(push_PxD)
    d_bias_U = d_bias_U.at[targets_P].add(d_target_P)
    return d_queries_PxD, d_candidates_UxD, d_bias_U, None, None, None


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


def _for_chunks(
    length: int, size: int, body: Callable[[Any, Any, int], Any], carry: Any
) -> Any:
    """`body(carry, start, size)` for all of `length`; the last chunk may be shorter."""
    whole = length // size
    if whole > 1:
        carry = jax.lax.fori_loop(0, whole, lambda i, c: body(c, i * size, size), carry)
    elif whole:
        carry = body(carry, 0, size)
    return body(carry, whole * size, length % size) if length % size else carry


def _is_target(targets_P: jax.Array, start: Any, size: int) -> jax.Array:
    return jnp.arange(size)[None] == (targets_P - start)[:, None]


def _part(
    candidates_UxD: jax.Array, offset_U: jax.Array, start: Any, size: int
) -> jax.Array:
    """A chunk of the candidates with what is added to their scores: part_CxF."""
    part_CxD, add_C = (
        jax.lax.dynamic_slice_in_dim(x, start, size) for x in (candidates_UxD, offset_U)
    )
    return jnp.concatenate([part_CxD, add_C[:, None]], axis=1)


def _update_slice(whole_Ux: jax.Array, part_Cx: jax.Array, start: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(whole_Ux, part_Cx, start, axis=0)
