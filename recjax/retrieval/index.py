"""Index of candidate vectors, and the scores of all candidates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

GROUP_SIZE = 32  # neighbouring columns of which `top_k` first compares the maximum


class Index(NamedTuple):
    """N candidates, padded to M; their score is `query . candidate + bias`."""

    candidates_MxD: jax.Array
    bias_M: jax.Array


def make_index(candidates_NxD: jax.Array, bias_N: jax.Array) -> Index:
    """Pads the candidates to complete groups, once for all batches of queries."""
    # Padded candidates score 0 like any item could: who ranks has to mask columns >= N.
    padding = (0, -len(bias_N) % GROUP_SIZE)
    return Index(jnp.pad(candidates_NxD, (padding, (0, 0))), jnp.pad(bias_N, padding))


def score_items(queries_BxD: jax.Array, index: Index) -> jax.Array:
    """Returns scores_BxM."""
    return queries_BxD @ index.candidates_MxD.T + index.bias_M[None]
