"""The numbers that validation chooses: all combinations, or one change at a time."""

import itertools

import pytest

from recjax.evaluation import grid_search as lib
from recjax.evaluation.grid_search import beyond_grid, grid_search, one_changed

pytestmark = pytest.mark.unit
GRID = (0.0, 1.0, 2.0)


def search(value, grid, size, tried=None):
    """Searches the maximum of `value`; returns the numbers and what was found."""

    def evaluate(options):
        if tried is not None:
            tried.extend(options)
        return [("found", option) for option in options]

    return grid_search(evaluate, lambda x: value(x[1]), grid, (0.0,) * size)


def concave(best):
    return lambda x: -sum((a - b) ** 2 for a, b in zip(x, best, strict=True))


def test_all_combinations_are_tried():
    tried = []
    chosen, found = search(concave((1.0, 0.0)), GRID, 2, tried)
    assert chosen == (1.0, 0.0)
    assert found == ("found", chosen)
    assert tried == [*itertools.product(GRID, repeat=2)]


@pytest.mark.parametrize("limit", [256, 1])
def test_the_best_may_lie_beyond_the_grid(monkeypatch, limit):
    monkeypatch.setattr(lib, "MAX_COMBINATIONS", limit)
    assert search(concave((1.0, 9.0)), GRID, 2)[0] == (1.0, 8.0)


def test_many_numbers_are_changed_one_at_a_time():
    best, tried = (0.0, 2.0, 1.0, 0.0, 1.0, 2.0), []
    assert search(concave(best), GRID, 6, tried)[0] == best
    assert len(tried) < len(GRID) ** 6 / 10


def test_nothing_changes_if_nothing_is_better():
    assert search(lambda x: 0.0, GRID, 6)[0] == (0.0,) * 6
    assert search(lambda x: 0.0, GRID, 2)[0] == (0.0,) * 2


def test_one_number_is_changed():
    assert one_changed((0.0, 4.0), (0.0, 1.0)) == [(1.0, 4.0), (0.0, 0.0), (0.0, 1.0)]


def test_the_ends_of_a_grid_are_doubled():
    grid = (-1.0, 0.0, 2.0)
    assert beyond_grid((0.0, 0.0), grid) == []
    assert beyond_grid((2.0, -1.0), grid) == [(4.0, -1.0), (2.0, -2.0)]
    assert beyond_grid((4.0, 0.0), grid) == [(8.0, 0.0)]
    assert beyond_grid((0.0,), (0.0,)) == []
