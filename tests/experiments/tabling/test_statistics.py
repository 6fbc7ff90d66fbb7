"""Against enumeration, worked cases, and what has to hold under chance."""

import itertools

import numpy as np
import pytest

from experiments.tabling.statistics import by_user, holm, paired_randomisation

pytestmark = pytest.mark.unit


def test_sums_of_each_user():
    users = np.array(["b", "a", "b"])
    np.testing.assert_array_equal(by_user(np.array([1.0, 5, 2]), users), [5, 3])


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0])
def test_randomisation_against_all_flips(shift):
    x = np.random.default_rng(3).normal(shift, 1, 10)
    signs = np.array(list(itertools.product((-1, 1), repeat=10)))
    want = (abs(signs @ x) >= abs(x.sum()) - 1e-12).mean()
    assert paired_randomisation(x) == pytest.approx(want, abs=0.015)


def test_rounding_errors_count_as_zero():
    """.1 + .1 + .1 - .3 is not 0 in floating point."""
    assert paired_randomisation(np.array([0.1, 0.1, 0.1, -0.3])) == 1.0


def test_users_without_a_difference_do_not_matter():
    x = np.random.default_rng(4).normal(0.3, 1, 40)
    many = np.concatenate([x, np.zeros(1000)])
    assert paired_randomisation(many) == paired_randomisation(x)
    assert paired_randomisation(np.zeros(5)) == 1.0


def test_p_is_uniform_under_the_null_hypothesis():
    rng = np.random.default_rng(5)
    every = [paired_randomisation(rng.normal(size=30), flips=200) for _ in range(400)]
    assert np.mean(np.array(every) < 0.1) == pytest.approx(0.1, abs=0.05)
    assert paired_randomisation(rng.normal(1, 1, 200)) == pytest.approx(1 / 10_001)


def test_holm_worked_by_hand():
    """0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, 0.04 x 1 is not below 0.06."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
