"""Ranks the target among the candidates and returns the top k."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batching.types import Queries
from recjax.retrieval.index import GROUP_SIZE, Index, score_items
from recjax.retrieval.top_k import top_k

Array = jax.Array | np.ndarray
Pair = tuple[jax.Array, jax.Array]
BLOCK_SIZE = 2**16  # scores compared at a time by `rank_by_weighting`: 256 KiB


class Ranked(NamedTuple):
    """Ranking of N items for B users.

    Attributes:
      above_B, equal_B, below_B: number of candidates, without the target, that score
        higher, the same and lower. NaN compares as equal, so it counts against the
        model.
      top_BxK: best candidates, best first; -1 where there are fewer than K.
    """

    above_B: jax.Array
    equal_B: jax.Array
    below_B: jax.Array
    target_score_B: jax.Array
    top_BxK: jax.Array


def rank(
    scores_BxN: Array,
    seen_BxS: Array,
    targets_B: Array,
    k: int,
    sampled_BxC: Array | None = None,
) -> Ranked:
    """Ranks the catalogue for each user, without the items the user has seen.

    Args:
      scores_BxN: scores of all items; an item at -inf is never recommended.
      seen_BxS: items that are no candidates, each at most once; -1 is padding.
      targets_B: item index of the target, which must be a candidate.
      k: number of best items to return.
      sampled_BxC: sampled candidates, the only items that are counted as above, equal
        or below; -1 is padding. The top k still come from the full catalogue.
    """
    num_items = scores_BxN.shape[1]
    padding = ((0, 0), (0, -num_items % GROUP_SIZE))
    scores_BxM = jnp.pad(scores_BxN, padding, constant_values=-jnp.inf)
    return _rank(scores_BxM, seen_BxS, targets_B, sampled_BxC, k, num_items)


def rank_queries(
    queries_BxD: jax.Array,
    index: Index,
    batch: Queries,
    k: int,
    num_items: int,
    fused_scores_BxN: jax.Array | None = None,
) -> Ranked:
    """Ranks the first `num_items` of the index, with fused baselines' scores added."""
    scores_BxM = score_items(queries_BxD, index)
    num_columns = len(index.bias_M)
    if fused_scores_BxN is not None:
        scores_BxM += jnp.pad(fused_scores_BxN, ((0, 0), (0, num_columns - num_items)))
    # The padding of the index has scores too, and would otherwise be ranked.
    is_item_M = jnp.arange(num_columns) < num_items
    scores_BxM = jnp.where(is_item_M[None], scores_BxM, -jnp.inf)
    return _rank(
        scores_BxM, batch.seen_BxS, batch.targets_B, batch.sampled_BxC, k, num_items
    )


def rank_by_weighting(
    scores_BxN: jax.Array,
    baseline_scores_BxMxN: jax.Array,
    weights_WxM: jax.Array,
    batch: Queries,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ranks the target for W weightings of M baselines, whose scores are added.

    Returns above_WxB, equal_WxB, below_WxB, see `Ranked`.
    """
    num_users, num_items = scores_BxN.shape
    user_B = jnp.arange(num_users)
    targets_B = jnp.asarray(batch.targets_B)
    # Margins over the target, hoisted out of the loop over weightings: a weighted sum
    # of margins is positive exactly where the weighted score exceeds the target's.
    margin_BxN = scores_BxN - scores_BxN[user_B, targets_B][:, None]
    fusion_margin_BxMxN = (
        baseline_scores_BxMxN - baseline_scores_BxMxN[user_B, :, targets_B][..., None]
    )
    excluded_BxN = _excluded_items(batch, num_items)
    num_candidates_B = _count(~excluded_BxN)
    margin_BxN = jnp.where(excluded_BxN, -jnp.inf, margin_BxN)
    counts = _count_weighted(margin_BxN, fusion_margin_BxMxN, weights_WxM)
    num_excluded_B = num_items - num_candidates_B
    return _candidate_counts(*counts, num_candidates_B[None], num_excluded_B[None])


def mark_items(items_BxS: jax.Array, mask_BxS: Array, num_items: int) -> jax.Array:
    """Returns where_BxN: True at the items of each row, without its padding."""
    user_Bx1 = jnp.arange(len(items_BxS))[:, None]
    index_BxS = jnp.where(mask_BxS, items_BxS, num_items)  # padding is dropped
    where_BxN = jnp.zeros((len(items_BxS), num_items), bool)
    return where_BxN.at[user_Bx1, index_BxS].set(True, mode="drop")


def _excluded_items(batch: Queries, num_items: int) -> jax.Array:
    """Returns excluded_BxN: the target, and every item that is no candidate."""
    user_B = jnp.arange(len(batch.targets_B))
    # Either all items but the listed ones are candidates, or only the listed ones.
    sampled = batch.sampled_BxC is not None
    listed_BxS = jnp.asarray(batch.sampled_BxC if sampled else batch.seen_BxS)
    excluded_BxN = mark_items(listed_BxS, listed_BxS >= 0, num_items) != sampled
    return excluded_BxN.at[user_B, jnp.asarray(batch.targets_B)].set(True)


def _count_weighted(
    margin_BxN: jax.Array, fusion_margin_BxMxN: jax.Array, weights_WxM: jax.Array
) -> Pair:
    """Counts the weighted sums above zero and below zero: above_WxB, below_WxB."""
    # Columns are visited in blocks, so that a block stays in a core's cache until all
    # weightings have used it.
    num_users, num_items = margin_BxN.shape
    size = max(BLOCK_SIZE // num_users, 1)
    num_padded = -num_items % size
    padding = ((0, 0), (0, num_padded))
    margin_BxK = jnp.pad(margin_BxN, padding, constant_values=-jnp.inf)
    fusion_margin_BxMxK = jnp.pad(fusion_margin_BxMxN, ((0, 0), *padding))

    def add_block(i: jax.Array, counts: Pair) -> Pair:
        margin_BxC, fusion_margin_BxMxC = (
            jax.lax.dynamic_slice_in_dim(array, i * size, size, axis=-1)
            for array in (margin_BxK, fusion_margin_BxMxK)
        )

        def count(weights_M: jax.Array) -> Pair:
            parts = (
                weights_M[m] * fusion_margin_BxMxC[:, m] for m in range(len(weights_M))
            )
            sum_BxC = margin_BxC + functools.reduce(jnp.add, parts)
            return _compare(sum_BxC, 0)

        return jax.tree.map(jnp.add, counts, jax.lax.map(count, weights_WxM))

    zeros_WxB = jnp.zeros((len(weights_WxM), num_users), jnp.int32)
    num_blocks = (num_items + num_padded) // size
    start = (zeros_WxB, zeros_WxB)
    above_WxB, below_WxB = jax.lax.fori_loop(0, num_blocks, add_block, start)
    return above_WxB, below_WxB - num_padded


def _rank(
    scores_BxM: jax.Array,
    seen_BxS: Array,
    targets_B: Array,
    sampled_BxC: Array | None,
    k: int,
    num_items: int,
) -> Ranked:
    """Ranks M columns, of which those from `num_items` on are padding at -inf."""
    targets_Bx1 = jnp.asarray(targets_B)[:, None]
    num_users, num_columns = scores_BxM.shape
    user_Bx1 = jnp.arange(num_users)[:, None]
    index_BxS = jnp.where(seen_BxS < 0, num_columns, seen_BxS)  # padding is dropped
    masked_scores_BxM = scores_BxM.at[user_Bx1, index_BxS].set(-jnp.inf, mode="drop")
    target_Bx1 = jnp.take_along_axis(scores_BxM, targets_Bx1, axis=1)
    best_BxK, top_BxK = top_k(masked_scores_BxM, k)
    top_BxK = jnp.where(best_BxK == -jnp.inf, -1, top_BxK)
    if sampled_BxC is None:
        compared_BxC = masked_scores_BxM
        # The target is a column too, but neither above nor below itself.
        num_candidates_B = num_items - 1 - (seen_BxS >= 0).sum(axis=1)
        num_excluded_B = num_columns - 1 - num_candidates_B
    else:
        is_candidate_BxC = jnp.asarray(sampled_BxC) >= 0
        items_BxC = jnp.maximum(jnp.asarray(sampled_BxC), 0)
        sampled_scores_BxC = jnp.take_along_axis(scores_BxM, items_BxC, axis=1)
        compared_BxC = jnp.where(is_candidate_BxC, sampled_scores_BxC, -jnp.inf)
        num_candidates_B = is_candidate_BxC.sum(axis=1)
        num_excluded_B = is_candidate_BxC.shape[1] - num_candidates_B
    above_B, below_B = _compare(compared_BxC, target_Bx1)
    target_B = target_Bx1[:, 0]
    # Excluded columns hold -inf, which is not below a target at -inf or NaN.
    num_excluded_B = jnp.where(target_B > -jnp.inf, num_excluded_B, 0)
    counts = _candidate_counts(above_B, below_B, num_candidates_B, num_excluded_B)
    return Ranked(*counts, target_B, top_BxK)


def _compare(scores_BxC: jax.Array, target_Bx1: jax.Array | int) -> Pair:
    """Counts the scores above and below the target: above_B, below_B."""
    return _count(scores_BxC > target_Bx1), _count(scores_BxC < target_Bx1)


def _candidate_counts(
    above: jax.Array,
    below: jax.Array,
    num_candidates: jax.Array,
    num_excluded: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Completes the counts above, equal to and below the target.

    `below` includes the excluded items, which are at -inf.
    """
    below = below - num_excluded
    # Whatever is neither above nor below is equal; that makes NaN a tie.
    return above, num_candidates - above - below, below


def _count(where_BxM: jax.Array) -> jax.Array:
    """Counts true values; XLA sums floats faster, and below 2**24 exactly."""
    dtype = jnp.float32 if where_BxM.shape[1] < 2**24 else jnp.int32
    return where_BxM.astype(dtype).sum(axis=1).astype(jnp.int32)
