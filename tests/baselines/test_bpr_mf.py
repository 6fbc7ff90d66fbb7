"""BPR learns, is reproducible, and names the library if it is missing."""

import sys

import numpy as np
import pytest

from recjax.baselines.bpr_mf import BprMf
from recjax.baselines.popularity import Random
from recjax.common.errors import UserError
from recjax.data.splits import load_data
from recjax.evaluation.evaluator import Evaluator
from recjax.runtime import mesh as mesh_lib
from recjax.runtime.compiler import Compiler
from tests.baselines import naive

pytestmark = pytest.mark.unit


def test_beats_random(config):
    pytest.importorskip("implicit", reason="pip install implicit")
    data, mesh = load_data(config), mesh_lib.make_mesh(config.mesh)
    evaluator, aucs = Evaluator(config, data, mesh, Compiler(print, mesh)), []
    for baseline in (Random(0), BprMf(0, width=8)):
        baseline.fit(data.train, data.num_items)
        aucs.append(evaluator.by_baseline(baseline, data.test).mean("auc"))
    assert aucs[1] > aucs[0] + 0.3


def test_scores_by_the_mean_of_the_history(data, batches):
    pytest.importorskip("implicit", reason="pip install implicit")
    scores = []
    for seed in (0, 0, 1):
        baseline = BprMf(seed, width=4, epochs=5)
        baseline.fit(data.train, data.num_items)
        scores.append(naive.score(baseline, batches))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])
    items, bias = baseline.items_NxD, baseline.bias_N
    for row, history in enumerate(naive.histories(batches)):
        user = sum(items[i] for i in set(history)) / max(len(set(history)), 1)
        want = items @ user + bias if len(history) else bias
        np.testing.assert_allclose(scores[2][row], want, rtol=1e-4, atol=1e-6)


def test_library_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit", None)
    monkeypatch.setitem(sys.modules, "implicit.bpr", None)
    with pytest.raises(UserError, match=r"bpr_mf needs .* pip install .implicit"):
        BprMf(0)
