"""Losses that train a model beside the main one; each returns a mean over its examples.

The vectors that they compare have length one, so that their products are cosines.
"""

import jax
import jax.numpy as jnp
import optax
from jax import Array

NEVER = -1e30  # a logit of weight zero; finite, because a gradient may be zero times it


def category(logits_PxC: Array, category_P: Array, mask_P: Array) -> Array:
    """Cross-entropy of the targets' categories."""
    cost_P = optax.softmax_cross_entropy_with_integer_labels(
        logits_PxC.astype(jnp.float32), category_P
    )
    return mean_where(cost_P, mask_P)


def contrast(
    anchors_BxD: Array,
    vectors_UxD: Array,
    positive_B: Array,
    excluded_BxU: Array,
    log_weight_U: Array,
    mask_B: Array,
    temperature: float,
) -> Array:
    """InfoNCE of an item and one near it in a history (van den Oord et al., 2018).

    Args:
      anchors_BxD: vectors of one item for each history.
      vectors_UxD: vectors of the candidates.
      positive_B: index of the near item among the candidates.
      excluded_BxU: candidates that are no negatives, as they are in the same history.
      log_weight_U: weights of the negatives, see `LossInputs`.
      mask_B: False for histories without two items.
      temperature: divides the cosines.
    """
    scores_BxU = anchors_BxD @ vectors_UxD.T / temperature
    negatives_BxU = scores_BxU + jnp.maximum(log_weight_U, NEVER)[None]
    negatives_BxU = jnp.where(excluded_BxU, NEVER, negatives_BxU)
    is_positive_BxU = jnp.arange(len(log_weight_U))[None] == positive_B[:, None]
    # As in `softmax`, the positive's own term has weight 1.
    logits_BxU = jnp.where(is_positive_BxU, scores_BxU, negatives_BxU)
    score_B = jnp.take_along_axis(scores_BxU, positive_B[:, None], axis=1)[:, 0]
    return mean_where(jax.nn.logsumexp(logits_BxU, axis=1) - score_B, mask_B)


def duorec(
    first_BxD: Array,
    second_BxD: Array,
    targets_B: Array,
    mask_B: Array,
    temperature: float,
) -> Array:
    """InfoNCE between histories with the same target (Qiu et al., DuoRec, 2022).

    The positives of a user vector are those of other histories with its target, in the
    other dropout pass; without any, its own history in that pass. The negatives are the
    histories with other targets.

    Args:
      first_BxD: user vectors by one dropout pass.
      second_BxD: the same by another one.
      targets_B: the item that each of them predicts.
      mask_B: False for padding.
      temperature: divides the cosines.
    """
    same_BxB = targets_B[:, None] == targets_B[None]
    own_BxB = jnp.eye(len(targets_B), dtype=bool)
    others_BxB = same_BxB & ~own_BxB & mask_B[None]
    has_others_Bx1 = others_BxB.any(axis=1, keepdims=True)
    positive_BxB = jnp.where(has_others_Bx1, others_BxB, own_BxB)

    def one_way(scores_BxB: Array) -> Array:
        negatives_BxB = jnp.where(same_BxB | ~mask_B[None], NEVER, scores_BxB)
        log_sum_Bx1 = jax.nn.logsumexp(negatives_BxB, axis=1, keepdims=True)
        cost_BxB = jax.nn.softplus(log_sum_Bx1 - scores_BxB)
        cost_B = (cost_BxB * positive_BxB).sum(1) / positive_BxB.sum(1)
        return mean_where(cost_B, mask_B)

    scores_BxB = first_BxD @ second_BxD.T / temperature
    return (one_way(scores_BxB) + one_way(scores_BxB.T)) / 2


def mean_where(values_P: Array, mask_P: Array) -> Array:
    """Mean of the values where the mask is True; 0 if it is nowhere."""
    return jnp.where(mask_P, values_P, 0.0).sum() / jnp.maximum(mask_P.sum(), 1)
