"""Beyond-accuracy metrics against cases worked by hand and naive loops."""

import itertools
import math

import numpy as np
import pytest

from recjax.evaluation import beyond_accuracy

pytestmark = pytest.mark.unit

TOP = np.array([[0, 1], [0, 2], [0, -1]])  # of four items
EVENTS = np.array([6, 2, 0, 0])


def lists(top):
    return [[i for i in row if i >= 0] for row in top.tolist()]


@pytest.fixture
def many():
    """70 lists of up to 8 of 50 items, some short, one empty; vectors, one of zeros."""
    rng = np.random.default_rng(0)
    top = np.stack([rng.permutation(50)[:8] for _ in range(70)])
    top[np.arange(8)[None] >= rng.integers(1, 9, 70)[:, None]] = -1
    top[3], top[4, 1:] = -1, -1
    vectors = rng.normal(size=(50, 5)).astype(np.float32)
    vectors[7] = 0
    return top, rng.integers(0, 30, 50), vectors


def test_coverage_by_hand():
    assert beyond_accuracy.coverage(TOP, 4) == 3 / 4


def test_gini_by_hand():
    # Counts 0, 1, 1, 3: (-3 * 0 - 1 * 1 + 1 * 1 + 3 * 3) / (4 * 5).
    assert beyond_accuracy.gini(TOP, 4) == pytest.approx(9 / 20)
    assert beyond_accuracy.gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert beyond_accuracy.gini(np.array([[2], [2]]), 4) == pytest.approx(1 - 1 / 4)
    assert beyond_accuracy.gini(np.full((2, 2), -1), 4) == 0


def test_gini_is_twice_the_area_at_the_lorenz_curve(many):
    top, _, _ = many
    counts = np.sort([sum(i in row for row in lists(top)) for i in range(50)])
    lorenz = np.concatenate([[0], np.cumsum(counts) / counts.sum()])
    even = np.linspace(0, 1, 51)
    assert beyond_accuracy.gini(top, 50) == pytest.approx(
        2 * np.trapezoid(even - lorenz, even)
    )


def test_novelty_by_hand():
    # One event more for each of the four: shares 7/12, 3/12, 1/12, 1/12.
    bits = [-math.log2(n / 12) for n in (7, 3, 1, 1)]
    np.testing.assert_allclose(beyond_accuracy.self_information(EVENTS), bits)
    novelty = beyond_accuracy.mean_of_lists(
        beyond_accuracy.self_information(EVENTS), TOP
    )
    want = ((bits[0] + bits[1]) / 2 + (bits[0] + bits[2]) / 2 + bits[0]) / 3
    assert novelty == pytest.approx(want)


def test_diversity_by_hand():
    """Cosines 0 and -1; a list of one item does not count."""
    vectors = np.array([[2, 0], [0, 3], [-1, 0], [9, 9]], np.float32)
    assert beyond_accuracy.diversity(TOP, vectors) == pytest.approx((1 + 2) / 2)
    three = np.array([[0, 1, 2]])  # pairs at 1, 2 and 1
    assert beyond_accuracy.diversity(three, vectors) == pytest.approx(4 / 3)


def test_all_by_hand():
    """At k = 1 everybody gets item 0, the only head item, with 6 of 8 events."""
    vectors = np.eye(4, dtype=np.float32)
    found = beyond_accuracy.beyond_accuracy(TOP, EVENTS, 1, vectors)
    assert found == pytest.approx(
        {"coverage@1": 1 / 4, "gini@1": 3 / 4, "novelty@1": -math.log2(7 / 12),
         "head@1": 1.0}
    )  # fmt: skip
    found = beyond_accuracy.beyond_accuracy(TOP, EVENTS, 5, vectors)
    assert found["head@5"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert found["diversity@5"] == pytest.approx(1)
    assert "diversity@5" not in beyond_accuracy.beyond_accuracy(TOP, EVENTS, 5)


def test_diversity_of_non_finite_vectors_is_omitted():
    vectors = np.full((4, 2), np.nan, np.float32)
    found = beyond_accuracy.beyond_accuracy(TOP, EVENTS, 2, vectors)
    assert found.keys() == {"coverage@2", "gini@2", "novelty@2", "head@2"}


def test_means_against_a_loop(many):
    top, events, _ = many
    x = beyond_accuracy.self_information(events)
    want = [np.mean([x[i] for i in row]) for row in lists(top) if row]
    assert beyond_accuracy.mean_of_lists(x, top) == pytest.approx(np.mean(want))


@pytest.mark.parametrize("most", [1, 3 * 8 * 5, 2**22])
def test_diversity_against_a_loop(many, monkeypatch, most):
    """All lists at once, and some at a time."""
    monkeypatch.setattr(beyond_accuracy, "MAX_VALUES", most)
    top, _, vectors = many
    plain, sizes = beyond_accuracy._pair_distances, []

    def counted(part, vectors):
        sizes.append(len(part))
        return plain(part, vectors)

    monkeypatch.setattr(beyond_accuracy, "_pair_distances", counted)

    def distance(a, b):
        norms = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
        return 1 - (vectors[a] @ vectors[b] / norms if norms else 0)

    want = [
        np.mean([distance(a, b) for a, b in itertools.combinations(row, 2)])
        for row in lists(top)
        if len(row) > 1
    ]
    assert beyond_accuracy.diversity(top, vectors) == pytest.approx(
        np.mean(want), rel=1e-5
    )
    assert max(sizes) * 8 * 5 <= max(most, 8 * 5)
    assert sum(sizes) == 70
