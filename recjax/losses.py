"""Training losses: one value per target before any mean."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Scored(NamedTuple):
    """What a loss compares; the score of a candidate is `query . candidate + bias`.

    Attributes:
      queries_PxD: what is scored against the candidates.
      candidates_UxD, bias_U: the candidates.
      targets_P: index of each target among the candidates.
      mask_P: which targets count.
      log_weight_U: log w, the weight of a candidate as a negative; -inf keeps it out.
        Where item u is c_u times a target of the batch, or drawn c_u times, w_u is c_u
        or, logQ-corrected, c_u / E[c_u] (Bengio and Senecal, 2008; Yi et al., 2019).
      label_P: 1 where the target was liked, else 0; None where ratings do not count.
    """

    queries_PxD: jax.Array
    candidates_UxD: jax.Array
    bias_U: jax.Array
    targets_P: jax.Array
    mask_P: jax.Array
    log_weight_U: jax.Array
    label_P: jax.Array | None = None

    def clean(self) -> "Scored":
        """In float32, with zeros where nothing counts, so that no NaN comes back."""
        queries_PxD = self.queries_PxD.astype(jnp.float32)
        return self._replace(
            queries_PxD=jnp.where(self.mask_P[:, None], queries_PxD, 0),
            candidates_UxD=self.candidates_UxD.astype(jnp.float32),
        )

    def target_scores(self) -> jax.Array:
        """scores_P of the targets."""
        own_PxD = self.candidates_UxD[self.targets_P]
        return (self.queries_PxD * own_PxD).sum(-1) + self.bias_U[self.targets_P]


Loss = Callable[[Scored], jax.Array]


def softmax(s: Scored, *, smoothing: float = 0.0, chunk: int = 1024) -> jax.Array:
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


def bce(s: Scored, *, k: int = 1, beta: float = 1.0, chunk: int = 1024) -> jax.Array:
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


def rating(s: Scored) -> jax.Array:
    """Binary cross-entropy of like or not, of the targets alone: loss_P."""
    assert s.label_P is not None
    s = s.clean()
    cost_P = optax.sigmoid_binary_cross_entropy(s.target_scores(), s.label_P)
    return jnp.where(s.mask_P, cost_P, 0.0)


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
    add_U = jnp.maximum(bias_U + log_weight_U, -1e30)

    def add_up(carry: Any, start: Any, size: int) -> Any:
        most_P, sum_P = carry
        scores_PxC = queries_PxF @ _part(candidates_UxD, add_U, start, size).T
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
        add_U,
        targets_P,
        mask_P,
        log_sum_P,
        target_P,
    )
    return loss_P, kept


def _cross_entropy_bwd(
    chunk: int, kept: Any, grad_P: jax.Array
) -> tuple[jax.Array | None, ...]:
    queries_PxF, candidates_UxD, add_U, targets_P, mask_P, log_sum_P, target_P = kept
    grad_P = jnp.where(mask_P, grad_P, 0.0)
    # XLA on CPU multiplies by a transposed P x C at a third of the speed, and with the
    # transposed queries at full speed. It would exchange the two without barriers.
    barrier = jax.lax.optimization_barrier
    queries_FxP = barrier(queries_PxF.T)

    def add_up(carry: Any, start: Any, size: int) -> Any:
        d_queries_PxD, d_candidates_UxD, d_bias_U = carry
        part_CxF = _part(candidates_UxD, add_U, start, size)
        prob_PxC = jnp.exp(queries_PxF @ part_CxF.T - log_sum_P[:, None])
        prob_PxC = jnp.where(
            _is_target(targets_P, start, size), 0.0, prob_PxC * grad_P[:, None]
        )
        d_part_CxF = barrier(queries_FxP @ prob_PxC).T
        return (
            d_queries_PxD + prob_PxC @ part_CxF[:, :-1],
            _put(d_candidates_UxD, d_part_CxF[:, :-1], start),
            _put(d_bias_U, d_part_CxF[:, -1], start),
        )

    push_P = (jnp.exp(target_P - log_sum_P) - 1) * grad_P  # of the target's own score
    d_queries_PxD = candidates_UxD[targets_P] * push_P[:, None]
    sums = (d_queries_PxD, jnp.zeros_like(candidates_UxD), jnp.zeros_like(add_U))
    d_queries_PxD, d_candidates_UxD, d_bias_U = _for_chunks(
        len(add_U), chunk, add_up, sums
    )
    push_PxD = queries_PxF[:, :-1] * push_P[:, None]
    d_candidates_UxD = d_candidates_UxD.at[targets_P].add(push_PxD)
    d_bias_U = d_bias_U.at[targets_P].add(push_P)
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
    candidates_UxD: jax.Array, add_U: jax.Array, start: Any, size: int
) -> jax.Array:
    """A chunk of the candidates with what is added to their scores: part_CxF."""
    part_CxD, add_C = (
        jax.lax.dynamic_slice_in_dim(x, start, size) for x in (candidates_UxD, add_U)
    )
    return jnp.concatenate([part_CxD, add_C[:, None]], axis=1)


def _put(whole_Ux: jax.Array, part_Cx: jax.Array, start: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(whole_Ux, part_Cx, start, axis=0)


# Made of `config.loss` and N.
LOSSES: dict[str, Callable[[Any, int], Loss]] = {
    "softmax": lambda c, num_items: functools.partial(
        softmax, smoothing=c.smoothing, chunk=c.chunk
    ),
    "bce": lambda c, num_items: functools.partial(bce, k=c.k, chunk=c.chunk),
    "gbce": lambda c, num_items: functools.partial(
        bce, k=c.k, beta=gbce_beta(c.k, c.calibration, num_items), chunk=c.chunk
    ),
    "rating": lambda c, num_items: rating,
}
