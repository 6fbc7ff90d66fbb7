"""Ties, seen items and scores that are not finite in the ranking."""

import jax
import numpy as np
import pytest

from recjax.data.batching.types import Queries
from recjax.evaluation.ranking import rank, rank_queries
from recjax.retrieval.index import make_index
from recjax.retrieval.top_k import top_k

pytestmark = pytest.mark.unit


def run(scores, seen, target, k=2):
    r = rank(
        np.array([scores], np.float32),
        np.array([seen], np.int32),
        np.array([target], np.int32),
        k,
    )
    counts = tuple(int(x[0]) for x in (r.above_B, r.equal_B, r.below_B))
    return counts, r.top_BxK[0].tolist()


def test_seen_items_are_not_candidates():
    assert run([5, 4, 3, 2], [-1, -1], 2) == ((2, 0, 1), [0, 1])
    assert run([5, 4, 3, 2], [0, -1], 2) == ((1, 0, 1), [1, 2])
    assert run([5, 4, 3, 2], [0, 3], 2) == ((1, 0, 0), [1, 2])
    assert run([5, 4, 3, 2], [0, 3], 2, k=4)[1] == [1, 2, -1, -1]  # there are no more


def test_ties_are_counted():
    assert run([1, 1, 1, 0], [-1], 1)[0] == (0, 2, 1)
    assert run([1, 1, 1, 0], [0], 1)[0] == (0, 1, 1)


def test_nan_counts_against_the_model():
    assert run([1, np.nan, 2, 0], [-1], 1)[0] == (0, 3, 0)
    assert run([np.nan] * 4, [-1], 0)[0] == (0, 3, 0)


def test_infinite_scores_are_counted():
    assert run([1, -np.inf, 2, -np.inf], [2, -1], 0) == ((0, 0, 2), [0, -1])
    assert run([1, -np.inf, 2, -np.inf], [2, -1], 1)[0] == (1, 1, 0)


@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan, 1.0])
def test_what_fills_the_index_up_is_never_ranked(broken):
    """The counts of every query add up to the number of its candidates."""
    index = make_index(np.ones((3, 2), np.float32), np.zeros(3, np.float32))
    assert index.bias_M.shape == (32,)
    queries = np.array([[broken, 1.0]], np.float32)
    q = Queries(
        history_BxH=np.zeros((1, 1), np.int32),
        mask_BxH=np.ones((1, 1), bool),
        seen_BxS=np.array([[0, -1]], np.int32),
        targets_B=np.array([2], np.int32),
        examples_B=np.zeros(1, np.int32),
    )
    r = rank_queries(queries, index, q, 3, 3)
    assert [int(x[0]) for x in (r.above_B, r.equal_B, r.below_B)] == [0, 1, 0]
    assert set(r.top_BxK[0].tolist()) <= {-1, 1, 2}


@pytest.mark.parametrize("columns", [32, 96, 992, 1024])
@pytest.mark.parametrize("group", [4, 32])
def test_top_k_takes_the_first_of_equals(columns, group):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (7, columns)).astype(np.float32)
    x[0] = -np.inf
    for got, want in zip(top_k(x, 5, group), jax.lax.top_k(x, 5), strict=True):
        np.testing.assert_array_equal(got, want)
