"""Index of candidate vectors, and the scores of all candidates."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

GROUP_SIZE = 32  # neighbouring columns that `top_k` first compares by their maximum


class Index(NamedTuple):
    """N candidates, padded to M; their score is `query . candidate + bias`."""

    candidates_MxD: Array
    bias_M: Array


def make_index(candidates_NxD: Array, bias_N: Array) -> Index:
    """Pads the candidates to complete groups, once for all batches of queries."""
    # Padded candidates score 0, which is not a low score; the caller masks them.
    padding = (0, -len(bias_N) % GROUP_SIZE)
    return Index(jnp.pad(candidates_NxD, (padding, (0, 0))), jnp.pad(bias_N, padding))


def score_items(queries_BxD: Array, index: Index) -> Array:
    """Scores all candidates: scores_BxM, with padding."""
    return queries_BxD @ index.candidates_MxD.T + index.bias_M[None]
