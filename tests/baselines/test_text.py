"""Text similarity against loops over items."""

import numpy as np
import pytest

from recjax.baselines.text import TextSimilarity
from recjax.catalogue.whitening import whiten
from tests.baselines import naive

pytestmark = pytest.mark.unit


@pytest.fixture
def vectors(data):
    """Random vectors that all point in nearly one direction."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(data.num_items, 8)) + 4).astype(np.float32)


def test_against_loops(data, batches, vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    want = []
    for history in naive.histories(batches):
        newest = history[::-1]
        shares = [0.5**back for back in range(len(newest))]
        user = sum(s * unit[item] for s, item in zip(shares, newest, strict=True))
        want.append(unit @ user / sum(shares) / 0.1 if len(newest) else 0 * unit[:, 0])
    baseline = TextSimilarity(vectors)
    baseline.fit(data.train, data.num_items)
    np.testing.assert_allclose(naive.score(baseline, batches), want, atol=1e-4)


def test_a_common_direction_does_not_matter(data, batches, vectors):
    plain = naive.score(TextSimilarity(whiten(vectors, 0.5)), batches)
    moved = naive.score(TextSimilarity(whiten(vectors + 100, 0.5)), batches)
    np.testing.assert_allclose(plain, moved, atol=0.1)
    assert plain.std() > 1
