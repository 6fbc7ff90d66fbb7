"""Ranks of a run, against recjax's own metrics."""

import json

import numpy as np
import polars as pl
import pytest

from experiments.tabling.finished import Ranks
from recjax.evaluation.metrics import rank_metric, ranking_values

pytestmark = pytest.mark.unit


def test_values_are_those_of_the_results(tmp_path):
    """Ranks around each k, and the phase that came last by the results."""
    above_R = np.arange(12)
    values = ranking_values(above_R, np.zeros(12, int), 20 - above_R, (5, 10))
    columns = {"user": ["u"] * 12, "phase-b": above_R + 1, "phase-a": above_R + 2}
    pl.DataFrame(columns).write_parquet(tmp_path / "ranks.parquet")
    test = {m: {"value": float(x.mean())} for m, x in values.items()}
    results = {"test": test, "phases": {"a": {}, "b": {}}, "baselines": {}}
    results = json.loads(json.dumps(results))
    ranks = Ranks(tmp_path, results)
    for metric, value_R in values.items():
        if metric != "auc":
            np.testing.assert_allclose(
                rank_metric(ranks.rank_R, metric), value_R, rtol=1e-12
            )
