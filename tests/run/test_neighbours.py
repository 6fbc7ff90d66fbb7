"""Items with similar texts, and training with them."""

import time

import numpy as np
import pytest

from recjax.catalogue.whitening import whiten
from recjax.data.dataset import count_events
from recjax.run.dry_run import dry_run
from recjax.run.neighbours import nearest_items
from recjax.run.references import References
from recjax.run.setup import open_run


def test_nearest_items_by_hand(monkeypatch):
    monkeypatch.setattr("recjax.run.neighbours.CHUNK_SIZE", 2)
    angles = np.deg2rad([0, 10, 15, 90, 100, 12])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    allowed = np.array([True] * 5 + [False])  # the last item is no neighbour
    assert nearest_items(vectors, allowed, 1).tolist() == [[1], [2], [1], [4], [3], [5]]
    found = nearest_items(vectors, allowed, 9)
    assert found.shape == (6, 9)
    for item, row in enumerate(found[:5]):
        assert sorted(row[:4]) == [x for x in range(5) if x != item]
        assert (row[4:] == item).all()
    one = np.arange(6) == 2
    assert nearest_items(vectors, one, 2).tolist() == [[i, i] for i in range(6)]


def test_a_run_finds_neighbours_among_items_with_events(config, tmp_path):
    c = config.unlock()
    c.data.cold_items = 0.2
    c.augment.substitute, c.augment.neighbours = 0.3, 3
    with open_run(c.lock(), tmp_path, time.perf_counter()) as (run, params):
        white_NxE = whiten(References(run, params).vectors_NxE, 0.5)
        trained_N = count_events(run.data) > 0
        found = run.neighbours_NxK
    assert not trained_N.all()
    unit_NxE = white_NxE / np.linalg.norm(white_NxE, axis=1, keepdims=True)
    for item in np.flatnonzero(trained_N):
        cosine_N = np.where(trained_N, unit_NxE @ unit_NxE[item], -2)
        cosine_N[item] = -2
        assert trained_N[found[item]].all()
        assert item not in found[item]
        assert cosine_N[found[item]].min() == pytest.approx(np.sort(cosine_N)[-3])


def test_a_dry_run_needs_no_neighbours(config, tmp_path, capsys):
    c = config.unlock()
    c.augment.substitute, c.loss.negatives = 0.3, "in_batch"
    dry_run(c.lock(), str(tmp_path / "run"))
    assert "dry run: no problems" in capsys.readouterr().out
