"""Scores -> the target's rank and the top k; the one ranking everything stands on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


class Ranked(NamedTuple):
    """Ranking of N items for B users.

    Attributes:
      above_B, equal_B, below_B: candidates other than the target that score higher,
        the same, lower. A NaN compares as equal, so that it counts against.
      target_score_B: the target's own score.
      top_BxK: the best candidates, best first; -1 where there are fewer than K.
    """

    above_B: jax.Array
    equal_B: jax.Array
    below_B: jax.Array
    target_score_B: jax.Array
    top_BxK: jax.Array


def rank(scores_BxN: Array, seen_BxS: Array, targets_B: Array, k: int) -> Ranked:
    """Ranks the catalogue for each user without what the user has seen.

    Args:
      scores_BxN: of all items.
      seen_BxS: catalogue rows that are no candidates; -1 is padding.
      targets_B: catalogue row of the target, which must be a candidate.
      k: how many of the best to return.
    """
    scores_BxN, targets_B = jnp.asarray(scores_BxN), jnp.asarray(targets_B)
    num_users, num_items = scores_BxN.shape
    user_Bx1 = jnp.arange(num_users)[:, None]
    seen_BxS = jnp.where(seen_BxS < 0, num_items, seen_BxS)  # beyond: dropped
    candidate_BxN = jnp.ones(scores_BxN.shape, bool)
    candidate_BxN = candidate_BxN.at[user_Bx1, seen_BxS].set(False, mode="drop")
    target_Bx1 = jnp.take_along_axis(scores_BxN, targets_B[:, None], axis=1)
    above_B = (candidate_BxN & (scores_BxN > target_Bx1)).sum(axis=1)
    below_B = (candidate_BxN & (scores_BxN < target_Bx1)).sum(axis=1)
    equal_B = candidate_BxN.sum(axis=1) - 1 - above_B - below_B
    shown_BxN = jnp.where(candidate_BxN, scores_BxN, -jnp.inf)
    _, top_BxK = jax.lax.top_k(shown_BxN, k)
    there_BxK = jnp.take_along_axis(candidate_BxN, top_BxK, axis=1)
    top_BxK = jnp.where(there_BxK, top_BxK, -1)
    return Ranked(above_B, equal_B, below_B, target_Bx1[:, 0], top_BxK)


def dot_scores(
    queries_BxD: jax.Array, candidates_NxD: jax.Array, bias_N: jax.Array
) -> jax.Array:
    """scores_BxN of every head: `query . candidate + bias`."""
    return queries_BxD @ candidates_NxD.T + bias_N[None]


def rank_queries(
    queries_BxD: jax.Array,
    candidates_NxD: jax.Array,
    bias_N: jax.Array,
    batch: Any,
    k: int,
) -> Ranked:
    """Ranks a batch of `Queries` by `dot_scores`."""
    scores_BxN = dot_scores(queries_BxD, candidates_NxD, bias_N)
    return rank(scores_BxN, batch.seen_BxS, batch.targets_B, k)
