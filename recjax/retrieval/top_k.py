"""Exact top k in two steps."""

import jax
import jax.numpy as jnp

from recjax.retrieval.index import GROUP_SIZE


def top_k(
    x_BxM: jax.Array, k: int, group: int = GROUP_SIZE
) -> tuple[jax.Array, jax.Array]:
    """The k largest and their columns, as `jax.lax.top_k`, but in two steps.

    The k largest lie in the k groups of neighbours with the largest maxima, where of
    equal ones the first counts. Looking through those and the maxima alone is twice as
    fast on a CPU.

    Args:
      x_BxM: where M is a multiple of `group`.
      k: at most M.
      group: columns in a group.
    """
    num_rows, num_columns = x_BxM.shape
    if num_columns <= 2 * k * group:
        values_BxK, columns_BxK = jax.lax.top_k(x_BxM, k)
        return values_BxK, columns_BxK
    groups_BxGxJ = x_BxM.reshape(num_rows, -1, group)
    _, chosen_BxK = jax.lax.top_k(groups_BxGxJ.max(axis=2), k)
    chosen_BxK = jnp.sort(chosen_BxK, axis=1)
    some_BxKxJ = jnp.take_along_axis(groups_BxGxJ, chosen_BxK[..., None], axis=1)
    values_BxK, place_BxK = jax.lax.top_k(some_BxKxJ.reshape(num_rows, -1), k)
    group_BxK = jnp.take_along_axis(chosen_BxK, place_BxK // group, axis=1)
    return values_BxK, group_BxK * group + place_BxK % group
