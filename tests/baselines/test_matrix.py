"""The sparse matrices against dense ones that are filled one by one."""

import numpy as np
import pytest

from recjax.baselines import matrix
from tests.baselines import naive

pytestmark = pytest.mark.unit


def test_interactions(data):
    found = matrix.interactions(data.train, data.num_items)
    assert found.dtype == np.float32
    assert found.has_canonical_format
    want = naive.interactions(data.train, data.num_items)
    np.testing.assert_array_equal(found.toarray(), want)


def test_histories(data, batches):
    found = [matrix.histories(q, data.num_items).toarray() for q in batches]
    want = naive.history_matrix(batches, data.num_items)
    np.testing.assert_array_equal(np.concatenate(found), want)


def test_weighted_histories(data, batches):
    """The newest item is at the last position; weights of repeated items add up."""
    weights_H = np.array([0, 0, 0, 0, 0, 1, 2, 4, 8.0])
    want = np.zeros((7, data.num_items))
    for row, history in enumerate(naive.histories(batches[:1])):
        for back, item in enumerate(history[::-1][:4]):
            want[row, item] += 8 / 2**back
    found = matrix.weighted_histories(batches[0], data.num_items, weights_H)
    np.testing.assert_array_equal(found.toarray(), want)


def test_tie_break(data):
    found = matrix.tie_break(data.train, data.num_items)
    np.testing.assert_allclose(found, naive.tie_break(data.train, data.num_items))
