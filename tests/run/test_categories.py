"""Categories of items: values of a column, or clusters of texts."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recjax.common.errors import UserError
from recjax.run.categories import cluster, column_categories

pytestmark = pytest.mark.unit
DATA = SimpleNamespace(items=pl.DataFrame({"kind": ["b", "a", "c", "a", "a", "b"]}))


def test_categories_of_a_column_are_numbered_by_frequency():
    assert column_categories(DATA, "kind", 8).tolist() == [1, 0, 2, 0, 0, 1]
    assert column_categories(DATA, "kind", 2).tolist() == [1, 0, 1, 0, 0, 1]
    with pytest.raises(UserError, match=r"loss.category: 'genre' is not a column"):
        column_categories(DATA, "genre", 2)


def test_clusters_are_those_of_the_directions():
    rng = np.random.default_rng(0)
    centre_N = np.repeat([0, 1, 2], 20)
    lengths = rng.uniform(1, 9, (60, 1))
    vectors = lengths * (np.eye(3)[centre_N] + rng.normal(0, 0.05, (60, 3)))
    found = cluster(vectors, 3, seed=0)
    assert found.tolist() == cluster(vectors, 3, seed=0).tolist()
    assert len({(c, f) for c, f in zip(centre_N, found, strict=True)}) == 3


def test_more_clusters_than_directions_leave_some_empty():
    found = cluster(np.repeat(np.eye(2), 3, axis=0), 5, seed=0)
    assert found[0] != found[3]
    assert found.max() < 5
