"""Properties that every baseline must have."""

import numpy as np
import pytest

from recjax.baselines import BASELINES
from recjax.data.splits import load_data
from recjax.evaluation.evaluator import Evaluator
from recjax.runtime import mesh as mesh_lib
from recjax.runtime.compiler import Compiler
from tests.conftest import INSTALLED_BASELINES

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("split", ["leave_one_out", "fixed"])
@pytest.mark.parametrize("name", INSTALLED_BASELINES)
def test_ranks(config, split, name):
    """Scores are finite, one row per query; personalised baselines learn."""
    config.unlock().data.split = split
    data, mesh = load_data(config), mesh_lib.make_mesh(config.mesh)
    evaluator = Evaluator(config, data, mesh, Compiler(print, mesh))
    baseline = BASELINES[name](0)
    baseline.fit(data.train, data.num_items)
    for queries in evaluator.queries(data.test):
        scores_BxN = baseline.score(queries)
        assert scores_BxN.shape == (len(queries.targets_B), data.num_items)
        assert scores_BxN.dtype == np.float32
        assert np.isfinite(scores_BxN).all()
    auc = evaluator.by_baseline(baseline, data.test).mean("auc")
    personal = "popularity" not in name and name != "random"
    assert auc > (0.75 if personal else 0.3)


@pytest.mark.parametrize("name", INSTALLED_BASELINES)
def test_a_query_without_a_history(data, batches, name):
    """Padding of the last batch has no history, and users may have none."""
    assert (batches[-1].examples_B < 0).any()
    baseline = BASELINES[name](0)
    baseline.fit(data.train, data.num_items)
    scores_BxN = baseline.score(batches[-1])
    assert np.isfinite(scores_BxN[batches[-1].examples_B < 0]).all()
