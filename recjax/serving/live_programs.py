"""The arrays of a live catalogue, and the compiled programs over them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recjax.common.vectors import MIN_SQUARED_LENGTH, unit_vectors
from recjax.models.recommender import Recommender
from recjax.retrieval.top_k import top_k

# Product of two squared norms; an empty column has the cosine 0.
MIN_SQUARE = MIN_SQUARED_LENGTH**2


class Arrays(NamedTuple):
    """Vectors and biases of M columns; those without an item have the bias -inf.

    Attributes:
      history_MxD: vectors of items in histories; None if they are the candidates.
    """

    candidates_DxM: jax.Array
    bias_M: jax.Array
    history_MxD: jax.Array | None


@partial(jax.jit, donate_argnums=0)
def insert(
    arrays: Arrays,
    columns_U: jax.Array,
    history_UxD: jax.Array,
    candidates_UxD: jax.Array,
    bias_U: jax.Array,
) -> Arrays:
    """Writes the vectors and biases of items; columns out of range are left out."""
    history_MxD = arrays.history_MxD
    if history_MxD is not None:
        history_MxD = history_MxD.at[columns_U].set(history_UxD, mode="drop")
    return Arrays(
        arrays.candidates_DxM.at[:, columns_U].set(candidates_UxD.T, mode="drop"),
        arrays.bias_M.at[columns_U].set(bias_U, mode="drop"),
        history_MxD,
    )


@partial(jax.jit, donate_argnums=0)
def set_bias(arrays: Arrays, column: jax.Array, bias: jax.Array) -> Arrays:
    """Changes the bias of one column; -inf takes its item out of all lists."""
    return arrays._replace(bias_M=arrays.bias_M.at[column].set(bias, mode="drop"))


@jax.jit
def cosines(arrays: Arrays, columns_K: jax.Array, recent_R: jax.Array) -> jax.Array:
    """Returns cosines_KxR of items; those of padding mean nothing."""
    items_KxD = unit_vectors(arrays.candidates_DxM[:, columns_K].T)
    recent_RxD = unit_vectors(arrays.candidates_DxM[:, recent_R].T)
    return items_KxD @ recent_RxD.T


def _user_queries(
    recommender: Recommender,
    params: Any,
    arrays: Arrays,
    history_BxH: jax.Array,
    mask_BxH: jax.Array,
    times_BxH: jax.Array | None,
) -> jax.Array:
    """Returns the vectors queries_BxD that the candidates are compared with."""
    table, index_BxH = arrays.history_MxD, history_BxH
    if table is None:
        # The vectors of the histories are gathered from the columns.
        table = arrays.candidates_DxM[:, history_BxH.reshape(-1)].T
        index_BxH = jnp.arange(history_BxH.size).reshape(history_BxH.shape)
    return recommender.apply(
        {"params": params},
        table,
        index_BxH,
        mask_BxH,
        times_BxH,
        method=Recommender.user_queries,
    )


def _fuse(recommender: Recommender, params: Any, fused_BxWxM: jax.Array) -> jax.Array:
    return recommender.apply(
        {"params": params}, fused_BxWxM, method=Recommender.fuse_scores
    )


def _bias_seen(recommender: Recommender, params: Any, *args: jax.Array) -> jax.Array:
    biased: jax.Array = recommender.apply(
        {"params": params}, *args, method=Recommender.bias_seen
    )
    return biased


# Compiled once for all catalogues of the same model and capacity.
@partial(jax.jit, static_argnums=(0, 1))
def rank_batch(
    recommender: Recommender,
    k: int,
    params: Any,
    arrays: Arrays,
    history_BxH: jax.Array,
    mask_BxH: jax.Array,
    times_BxH: jax.Array | None,
    excluded_BxS: jax.Array,
    fused_BxWxM: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Returns columns_BxK and scores_BxK of the best items, without the excluded."""
    with jax.default_matmul_precision("float32"):
        queries_BxD = _user_queries(
            recommender, params, arrays, history_BxH, mask_BxH, times_BxH
        )
        scores_BxM = queries_BxD @ arrays.candidates_DxM + arrays.bias_M[None]
        if fused_BxWxM is not None:
            scores_BxM += _fuse(recommender, params, fused_BxWxM)
        scores_BxM = _bias_seen(recommender, params, scores_BxM, history_BxH, mask_BxH)
    users_Bx1 = jnp.arange(len(scores_BxM))[:, None]
    columns_BxS = jnp.where(excluded_BxS < 0, scores_BxM.shape[1], excluded_BxS)
    scores_BxM = scores_BxM.at[users_Bx1, columns_BxS].set(-jnp.inf, mode="drop")
    best_BxK, columns_BxK = top_k(scores_BxM, k)
    return columns_BxK, best_BxK


@partial(jax.jit, static_argnums=0)
def score_columns(
    recommender: Recommender,
    params: Any,
    arrays: Arrays,
    history_1xH: jax.Array,
    mask_1xH: jax.Array,
    times_1xH: jax.Array | None,
    columns_K: jax.Array,
    fused_1xWxM: jax.Array | None,
) -> jax.Array:
    """Returns scores_K of some columns; those of padding mean nothing."""
    with jax.default_matmul_precision("float32"):
        queries_1xD = _user_queries(
            recommender, params, arrays, history_1xH, mask_1xH, times_1xH
        )
        scores_1xK = queries_1xD @ arrays.candidates_DxM[:, columns_K]
        scores_1xK += arrays.bias_M[None, columns_K]
        if fused_1xWxM is not None:
            scores_1xK += _fuse(recommender, params, fused_1xWxM[..., columns_K])
        # The positions of the history's items among the columns.
        is_equal_KxH = columns_K[:, None] == history_1xH
        seen_1xK = jnp.arange(len(columns_K))[None]
        is_seen_1xK = (is_equal_KxH & mask_1xH).any(axis=1)[None]
        scores_1xK = _bias_seen(recommender, params, scores_1xK, seen_1xK, is_seen_1xK)
    return scores_1xK[0]


@partial(jax.jit, static_argnums=0)
def nearest(k: int, arrays: Arrays, column: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the columns and cosines of the k items nearest to one."""
    # The norms are divided out afterwards: a normalised table would be a copy.
    dots_M = arrays.candidates_DxM[:, column] @ arrays.candidates_DxM
    squares_M = jnp.square(arrays.candidates_DxM).sum(axis=0)
    cosine_M = dots_M * jax.lax.rsqrt(
        jnp.maximum(squares_M * squares_M[column], MIN_SQUARE)
    )
    cosine_M = jnp.where(arrays.bias_M > -jnp.inf, cosine_M, -jnp.inf)
    best_1xK, columns_1xK = top_k(cosine_M[None], k)
    return columns_1xK[0], best_1xK[0]


def count_compilations() -> int:
    """Returns the number of programs that have been compiled in this process."""
    functions: Any = (
        rank_batch,
        score_columns,
        nearest,
        insert,
        set_bias,
        cosines,
    )
    return sum(function._cache_size() for function in functions)
