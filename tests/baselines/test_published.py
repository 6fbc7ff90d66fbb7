"""Transitions on Amazon Industrial and Beauty against the results of other code.

The data is not part of the repository: `$RECJAX_SHARED/data`, by default the directory
`shared/data` next to the repository.
"""

import os
from pathlib import Path

import pytest

from recjax.baselines.transitions import Transitions
from recjax.config import base
from recjax.data.splits import load_data
from recjax.evaluation.evaluator import Evaluator
from recjax.runtime import mesh as mesh_lib
from recjax.runtime.compiler import Compiler

BESIDE = Path(__file__).parents[2].parent / "shared"
SHARED = Path(os.environ.get("RECJAX_SHARED", BESIDE)) / "data"


def measure(name, **changes):
    """Test metrics of the transitions baseline."""
    c = base.get_config().unlock()
    c.data.source = str(SHARED / name)
    c.update_from_flattened_dict(changes)
    if not (SHARED / name).is_dir():
        pytest.skip(f"no data set {SHARED / name}")
    data, mesh = load_data(c), mesh_lib.make_mesh(c.mesh)
    baseline = Transitions(c.seed)
    baseline.fit(data.train, data.num_items)
    evaluator = Evaluator(c, data, mesh, Compiler(print, mesh))
    return evaluator.by_baseline(baseline, data.test)


def test_amazon_industrial():
    """Fixed splits by time, a history of ten, seen items not masked."""
    found = measure(
        "amazon-industrial",
        **{"data.split": "fixed", "data.history_length": 10, "eval.mask_seen": False},
    )
    want = {"hr@5": 0.1171, "ndcg@5": 0.0957, "hr@10": 0.1346, "ndcg@10": 0.1013}
    for metric, value in want.items():
        assert found.mean(metric) == pytest.approx(value, abs=5e-4), metric


def test_amazon_beauty():
    """Leave-one-out, seen items masked, fitted on the training events only."""
    found = measure("amazon-beauty")
    for metric, value in {"hr@10": 0.0804, "ndcg@10": 0.0503}.items():
        assert found.mean(metric) == pytest.approx(value, abs=5e-4), metric
