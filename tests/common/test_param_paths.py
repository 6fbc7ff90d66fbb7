"""Rules over parameter paths."""

import numpy as np
import pytest

from recjax.common import param_paths
from recjax.common.errors import UserError

pytestmark = pytest.mark.unit

PATHS = ["items/text/encoder/layer_0/mlp_up/kernel", "head/bias"]


def test_first_full_match_wins():
    rules = ((r".*/kernel", 1), (r"head/.*", 2), (r".*", 3))
    assert list(param_paths.match_rules(rules, PATHS, "x").values()) == [1, 2]
    # fullmatch: a part of the path is not enough
    assert list(
        param_paths.match_rules(((r"head", 1), (r".*", 3)), PATHS, "x").values()
    ) == [3, 3]


def test_every_path_must_match():
    with pytest.raises(UserError, match=r"optim\.wd_mults: no rule matches head/bias"):
        param_paths.match_rules(((r".*/kernel", 1),), PATHS, "optim.wd_mults")
    with pytest.raises(UserError, match="is not a regex"):
        param_paths.match_rules((("(", 1),), PATHS, "x")
    for no_rule in ((".*", 1.0), ((".*", 1.0, 2.0),), (3,)):  # the first lacks a comma
        with pytest.raises(UserError, match=r"x: .* is not a pair \(regex, value\)"):
            param_paths.match_rules(no_rule, PATHS, "x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_change_to_a_value_that_is_not_finite_is_infinite(value):
    before, after = {"a": np.zeros(2)}, {"a": np.array([0, value])}
    assert param_paths.max_change(before, after) == {"a": np.inf}


def test_max_change_sees_every_bit():
    before = {"a": np.array([1.0, 0.0], np.float32), "b": np.ones(2, np.float32)}
    after = {"a": np.array([1.0, -0.0], np.float32), "b": np.ones(2, np.float32)}
    changes = param_paths.max_change(before, after)
    assert changes["a"] > 0
    assert changes["b"] == 0
