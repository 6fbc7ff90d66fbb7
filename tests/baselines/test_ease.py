"""The closed form against one ridge regression per item."""

import numpy as np
import pytest

from recjax.baselines.ease import Ease
from tests.baselines import naive

pytestmark = pytest.mark.unit


def test_is_the_ridge_regression_of_an_item_on_the_others(data, batches):
    num_items, l2 = data.num_items, 3.0
    x = naive.interactions(data.train, num_items)
    weights = np.zeros((num_items, num_items))
    for j in range(num_items):
        rest = np.delete(np.arange(num_items), j)
        gram = x[:, rest].T @ x[:, rest] + l2 * np.eye(len(rest))
        weights[rest, j] = np.linalg.solve(gram, x[:, rest].T @ x[:, j])
    want = naive.history_matrix(batches, num_items) @ weights
    want += naive.tie_break(data.train, num_items)

    baseline = Ease(0, l2=l2)
    baseline.fit(data.train, num_items)
    scores = naive.score(baseline, batches)
    np.testing.assert_allclose(scores, want, rtol=1e-4, atol=1e-6)
