"""What the console shows of a phase's parameters."""

import numpy as np
import pytest

from recjax.training.optimizer import PhaseRules
from recjax.training.param_report import change_summary, param_summary

pytestmark = pytest.mark.unit

ENCODER = "items/text/encoder/"
PARAMS = {
    "head/bias": np.zeros(4),
    ENCODER + "embeddings/word/embedding": np.zeros((5, 2)),
    **{f"{ENCODER}layer_{i}/mlp/kernel": np.zeros((2, 2)) for i in range(4)},
    "items/text/projection/kernel": np.zeros((2, 3)),
    "users/block_0/kernel": np.zeros(3),
    "users/norm/scale": np.zeros(2),
}


def rules(mult_of):
    return PhaseRules({path: mult_of(path) for path in PARAMS}, {})


def test_parts_with_one_learning_rate_are_named_once():
    frozen = rules(lambda path: None if path.startswith(ENCODER) else 1.0)
    assert param_summary(PARAMS, frozen, 0.002).splitlines() == [
        "  at 0.002: head (4), items/text/projection (6), users (5)",
        "  frozen: items/text/encoder (26)",
    ]


def test_layers_are_ranges():
    def mult_of(path):
        if not path.startswith(ENCODER):
            return 1.0
        return 0.1 if "layer_3" in path else None

    assert param_summary(PARAMS, rules(mult_of), 0.01).splitlines() == [
        "  at 0.01: head (4), items/text/projection (6), users (5)",
        f"  frozen: {ENCODER}embeddings (10), {ENCODER}layer_0-2 (12)",
        f"  at 0.001: {ENCODER}layer_3 (4)",
    ]


def test_layers_with_a_gap_are_no_range():
    def mult_of(path):
        return None if "layer_1" in path else 1.0

    trained, frozen = param_summary(PARAMS, rules(mult_of), 0.01).splitlines()
    assert f"{ENCODER}layer_0 (4), {ENCODER}layer_2-3 (8)" in trained
    assert frozen == f"  frozen: {ENCODER}layer_1 (4)"


def test_changes_are_one_line():
    frozen = rules(lambda path: None if path.startswith(ENCODER) else 1.0)
    changes = dict.fromkeys(PARAMS, 0.0)
    changes |= {"head/bias": 0.5, "users/norm/scale": 0.25}
    assert change_summary(changes, frozen) == (
        "training changed 2 of 4 arrays, by up to 0.5 (head/bias); 5 of 5 frozen ones "
        "are bit-identical"
    )
