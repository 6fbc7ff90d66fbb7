"""Scores -> the target's rank and the top k; the one ranking everything stands on."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.retrieval.index import GROUP_SIZE, Index, score_items
from recjax.retrieval.top_k import top_k

Array = jax.Array | np.ndarray
BLOCK_SIZE = 2**16  # users x items that `compare` looks at together: 256 KiB


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


def rank(
    scores_BxN: Array,
    seen_BxS: Array,
    targets_B: Array,
    k: int,
    sampled_BxC: Array | None = None,
) -> Ranked:
    """Ranks the catalogue for each user without what the user has seen.

    Args:
      scores_BxN: of all items; -inf is never recommended.
      seen_BxS: catalogue rows that are no candidates, each once; -1 is padding.
      targets_B: catalogue row of the target, which must be a candidate.
      k: how many of the best to return.
      sampled_BxC: items that alone are counted as above, equal or below; the best are
        those of the whole catalogue nevertheless. -1 is padding.
    """
    num_items = scores_BxN.shape[1]
    filling = ((0, 0), (0, -num_items % GROUP_SIZE))
    scores_BxM = jnp.pad(scores_BxN, filling, constant_values=-jnp.inf)
    return _rank(scores_BxM, seen_BxS, targets_B, sampled_BxC, k, num_items)


def rank_queries(
    queries_BxD: jax.Array,
    index: Index,
    batch: Any,
    k: int,
    num_items: int,
    fused_scores_BxN: jax.Array | None = None,
) -> Ranked:
    """Ranks the first `num_items` of the index for a batch of `Queries`.

    Where `fused_scores_BxN` is given it is added to the scores.
    """
    scores_BxM = score_items(queries_BxD, index)
    if fused_scores_BxN is not None:
        scores_BxM += jnp.pad(
            fused_scores_BxN, ((0, 0), (0, len(index.bias_M) - num_items))
        )
    is_item_M = jnp.arange(len(index.bias_M)) < num_items
    scores_BxM = jnp.where(is_item_M[None], scores_BxM, -jnp.inf)
    b = batch
    return _rank(scores_BxM, b.seen_BxS, b.targets_B, b.sampled_BxC, k, num_items)


def rank_by_weighting(
    scores_BxN: jax.Array,
    baseline_scores_BxMxN: jax.Array,
    weights_WxM: jax.Array,
    batch: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How the target ranks with each of W weightings of M further scores.

    Args:
      scores_BxN: of all items.
      baseline_scores_BxMxN: what is added to them, weighted.
      weights_WxM: the weightings.
      batch: a batch of `Queries`.

    Returns:
      above_WxB, equal_WxB, below_WxB, see `Ranked`.
    """
    num_users, num_items = scores_BxN.shape
    b, user_B = batch, jnp.arange(num_users)
    targets_B = jnp.asarray(b.targets_B)
    # By how much each item scores above the target; what a loop need not do again.
    margin_BxN = scores_BxN - scores_BxN[user_B, targets_B][:, None]
    fusion_margin_BxMxN = (
        baseline_scores_BxMxN - baseline_scores_BxMxN[user_B, :, targets_B][..., None]
    )
    listed_BxS, out = (
        (b.seen_BxS, True) if b.sampled_BxC is None else (b.sampled_BxC, False)
    )
    scatter_index_BxS = jnp.where(listed_BxS < 0, num_items, listed_BxS)  # dropped
    excluded_BxN = jnp.full(scores_BxN.shape, not out)
    excluded_BxN = excluded_BxN.at[user_B[:, None], scatter_index_BxS].set(
        out, mode="drop"
    )
    excluded_BxN = excluded_BxN.at[user_B, targets_B].set(True)
    candidates_B = _count(~excluded_BxN)
    margin_BxN = jnp.where(excluded_BxN, -jnp.inf, margin_BxN)
    above_WxB, below_WxB = _count_weighted(margin_BxN, fusion_margin_BxMxN, weights_WxM)
    below_WxB -= (num_items - candidates_B)[None]
    return above_WxB, candidates_B[None] - above_WxB - below_WxB, below_WxB


def _count_weighted(
    margin_BxN: jax.Array, fusion_margin_BxMxN: jax.Array, weights_WxM: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """above_WxB and below_WxB: how many sums are above 0, and below, by weighting.

    A block of columns stays in a core's cache until all weightings have seen it.
    """
    num_users, num_items = margin_BxN.shape
    size = max(BLOCK_SIZE // num_users, 1)
    num_filled = -num_items % size
    filling = ((0, 0), (0, num_filled))
    margin_BxK = jnp.pad(margin_BxN, filling, constant_values=-jnp.inf)
    fusion_margin_BxMxK = jnp.pad(fusion_margin_BxMxN, ((0, 0), *filling))

    def add_block(i: jax.Array, counts: Any) -> Any:
        margin_BxC, fusion_margin_BxMxC = (
            jax.lax.dynamic_slice_in_dim(x, i * size, size, axis=-1)
            for x in (margin_BxK, fusion_margin_BxMxK)
        )

        def count(weights_M: jax.Array) -> tuple[jax.Array, jax.Array]:
            parts = (
                weights_M[m] * fusion_margin_BxMxC[:, m] for m in range(len(weights_M))
            )
            sum_BxC = margin_BxC + functools.reduce(jnp.add, parts)
            return _count(sum_BxC > 0), _count(sum_BxC < 0)

        return jax.tree.map(jnp.add, counts, jax.lax.map(count, weights_WxM))

    none_WxB = jnp.zeros((len(weights_WxM), num_users), jnp.int32)
    num_blocks = (num_items + num_filled) // size
    above_WxB, below_WxB = jax.lax.fori_loop(
        0, num_blocks, add_block, (none_WxB, none_WxB)
    )
    return above_WxB, below_WxB - num_filled


def _rank(
    scores_BxM: jax.Array,
    seen_BxS: Array,
    targets_B: Array,
    sampled_BxC: Array | None,
    k: int,
    num_items: int,
) -> Ranked:
    """Columns from `num_items` on hold -inf."""
    targets_Bx1 = jnp.asarray(targets_B)[:, None]
    num_users, num_columns = scores_BxM.shape
    user_Bx1 = jnp.arange(num_users)[:, None]
    scatter_index_BxS = jnp.where(seen_BxS < 0, num_columns, seen_BxS)  # dropped
    masked_scores_BxM = scores_BxM.at[user_Bx1, scatter_index_BxS].set(
        -jnp.inf, mode="drop"
    )
    target_Bx1 = jnp.take_along_axis(scores_BxM, targets_Bx1, axis=1)
    best_BxK, top_BxK = top_k(masked_scores_BxM, k)
    top_BxK = jnp.where(best_BxK == -jnp.inf, -1, top_BxK)
    if sampled_BxC is not None:
        above_B, equal_B, below_B = _count_sampled(scores_BxM, target_Bx1, sampled_BxC)
        return Ranked(above_B, equal_B, below_B, target_Bx1[:, 0], top_BxK)
    num_seen_B = (seen_BxS >= 0).sum(axis=1)
    above_B = _count(masked_scores_BxM > target_Bx1)
    below_B = _count(masked_scores_BxM < target_Bx1)
    num_masked_B = num_columns - num_items + num_seen_B
    below_B -= jnp.where(target_Bx1[:, 0] > -jnp.inf, num_masked_B, 0)
    equal_B = num_items - num_seen_B - 1 - above_B - below_B
    return Ranked(above_B, equal_B, below_B, target_Bx1[:, 0], top_BxK)


def _count_sampled(
    scores_BxM: jax.Array, target_Bx1: jax.Array, sampled_BxC: Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Drawn items that score above, equal (or NaN) and below the target."""
    there_BxC = sampled_BxC >= 0
    columns_BxC = jnp.maximum(jnp.asarray(sampled_BxC), 0)
    scores_BxC = jnp.take_along_axis(scores_BxM, columns_BxC, axis=1)
    above_B = (there_BxC & (scores_BxC > target_Bx1)).sum(axis=1)
    below_B = (there_BxC & (scores_BxC < target_Bx1)).sum(axis=1)
    return above_B, there_BxC.sum(axis=1) - above_B - below_B, below_B


def _count(where_BxM: jax.Array) -> jax.Array:
    """How many are true, by a sum of floats where it is exact: XLA does it faster."""
    kind = jnp.float32 if where_BxM.shape[1] < 2**24 else jnp.int32
    return where_BxM.astype(kind).sum(axis=1).astype(jnp.int32)
