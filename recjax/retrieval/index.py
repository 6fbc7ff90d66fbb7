"""An index of candidates and the scores of all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

GROUP_SIZE = 32  # neighbours that `top_k` looks at together


class Index(NamedTuple):
    """N candidates to rank, filled up to M; `query . candidate + bias` is the score."""

    candidates_MxD: jax.Array
    bias_M: jax.Array


def make_index(candidates_NxD: jax.Array, bias_N: jax.Array) -> Index:
    """The candidates, once for all batches of queries."""
    filling = (0, -len(bias_N) % GROUP_SIZE)
    return Index(jnp.pad(candidates_NxD, (filling, (0, 0))), jnp.pad(bias_N, filling))


def score_items(queries_BxD: jax.Array, index: Index) -> jax.Array:
    """scores_BxM."""
    return queries_BxD @ index.candidates_MxD.T + index.bias_M[None]
