"""iALS against the paper's equations with full confidence matrices, user by user."""

import numpy as np
import pytest

from recjax.baselines import ials
from recjax.baselines.ials import Ials
from tests.baselines import naive

pytestmark = pytest.mark.unit

ALPHA, L2, WIDTH, EPOCHS = 7.0, 0.5, 4, 3


def solve(x, factors):
    """Equation 4, with the confidence of every pair on a diagonal."""
    solved = np.zeros((len(x), factors.shape[1]))
    for u in range(len(x)):
        confidence = np.diag(1 + ALPHA * x[u])
        left = factors.T @ confidence @ factors + L2 * np.eye(WIDTH)
        solved[u] = np.linalg.solve(left, factors.T @ confidence @ x[u])
    return solved


@pytest.mark.parametrize(("batch", "piece"), [(512, 64), (4, 2)])
def test_against_loops(data, batches, monkeypatch, batch, piece):
    monkeypatch.setattr(ials, "BATCH_SIZE", batch)
    monkeypatch.setattr(ials, "PIECE_SIZE", piece)
    x = naive.interactions(data.train, data.num_items)
    items = ials.init_items(1, data.num_items, WIDTH).astype(np.float64)
    for _ in range(EPOCHS):
        users = solve(x, items)
        items = solve(x.T, users)
    want = solve(naive.history_matrix(batches, data.num_items), items) @ items.T
    want += naive.tie_break(data.train, data.num_items)

    baseline = Ials(1, width=WIDTH, alpha=ALPHA, l2=L2, epochs=EPOCHS)
    baseline.fit(data.train, data.num_items)
    scores = naive.score(baseline, batches)
    np.testing.assert_allclose(scores, want, rtol=1e-3, atol=1e-4)


def test_no_history_is_popularity(data, batches):
    baseline = Ials(0, epochs=1)
    baseline.fit(data.train, data.num_items)
    queries = batches[0]._replace(mask_BxH=np.zeros_like(batches[0].mask_BxH))
    want = naive.tie_break(data.train, data.num_items)
    np.testing.assert_allclose(baseline.score(queries)[0], want, rtol=1e-5)
