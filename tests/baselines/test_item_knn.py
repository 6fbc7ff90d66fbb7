"""Item-kNN against similarities that are computed one pair at a time."""

import numpy as np
import pytest

from recjax.baselines.item_knn import ItemKnn
from tests.baselines import naive

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(3, 2.0), (100, 0.5)])
def test_against_loops(data, batches, neighbours, shrinkage):
    num_items = data.num_items
    x = naive.interactions(data.train, num_items)
    similar = np.zeros((num_items, num_items))
    for i in range(num_items):
        for j in set(range(num_items)) - {i}:
            common = (x[:, i] * x[:, j]).sum()
            norms = np.sqrt(x[:, i].sum()) * np.sqrt(x[:, j].sum())
            similar[i, j] = common / (norms + shrinkage)
        # Rounded, so that equal similarities are equal; of these the first are kept.
        order = np.argsort(-similar[i].round(6), kind="stable")
        similar[i, order[neighbours:]] = 0
    want = naive.history_matrix(batches, num_items) @ similar
    want += naive.tie_break(data.train, num_items)

    baseline = ItemKnn(0, neighbours=neighbours, shrinkage=shrinkage)
    baseline.fit(data.train, num_items)
    np.testing.assert_allclose(naive.score(baseline, batches), want, rtol=1e-5)
