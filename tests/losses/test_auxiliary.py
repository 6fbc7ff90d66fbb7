"""Auxiliary losses against cases worked by hand, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.losses.auxiliary import category, contrast, duorec

pytestmark = pytest.mark.unit


def test_category_is_the_mean_cross_entropy_of_real_targets():
    logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0], [9.0, 1.0]]))
    got = category(logits, jnp.array([1, 0, 0]), jnp.array([True, True, False]))
    np.testing.assert_allclose(got, (np.log(4 / 3) + np.log(2)) / 2, rtol=1e-6)
    assert category(logits, jnp.zeros(3, int), jnp.zeros(3, bool)) == 0


def contrast_of(vectors, log_weight=(0.0, 0.0, 0.0, 0.0), mask=(True, False)):
    """The first history has items 0 and 1, which is the next one, of four items."""
    excluded = jnp.array([[True, True, False, False]] * 2)
    positive = jnp.array([1, 0])
    anchors = vectors[jnp.array([0, 2])]
    weight, mask = jnp.array(log_weight), jnp.array(mask)
    return contrast(anchors, vectors, positive, excluded, weight, mask, 0.5)


def test_contrast_by_hand():
    vectors = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1], [-1, 0]])
    # The scores of item 0 with 1, 2 and 3 are 1.2, 0 and -2; it is none of its own.
    want = np.log(np.exp([1.2, 0, -2]).sum()) - 1.2
    np.testing.assert_allclose(contrast_of(vectors), want, rtol=1e-6)
    # Item 2 counts twice, 3 never; the positive has weight 1 though it is no negative.
    weight = (0.0, -np.inf, np.log(2), -np.inf)
    want = np.log(np.exp(1.2) + 2) - 1.2
    np.testing.assert_allclose(contrast_of(vectors, weight), want, rtol=1e-6)
    assert contrast_of(vectors, mask=(False, False)) == 0


def test_items_of_the_same_history_are_no_negatives():
    """In a history of 0, 1 and 2, only 3 is pushed away from 0."""
    vectors = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1], [-1, 0]])

    def cost(moved):
        excluded = jnp.array([[True, True, True, False]])
        args = jnp.array([1]), excluded, jnp.zeros(4), jnp.array([True]), 0.5
        return contrast(vectors[:1], moved, *args)

    gradient = jax.grad(cost)(vectors)
    assert not gradient[2].any()
    assert gradient[3, 0] > 0 > gradient[1, 0]


FIRST = jnp.array([[1.0, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]])
SECOND = jnp.array([[0.8, 0.6], [0.6, 0.8], [0, 1], [1.0, 0]])


def naive_duorec(first, second, targets, temperature):
    """The docstring of `duorec`, history by history."""
    costs = []
    for a, b in ((first, second), (second, first)):
        for i, target in enumerate(targets):
            scores = b @ a[i] / temperature
            others = [j for j, x in enumerate(targets) if x == target and j != i]
            negatives = [j for j, x in enumerate(targets) if x != target]
            for j in others or [i]:
                total = np.exp(scores[[j, *negatives]]).sum()
                costs.append((np.log(total) - scores[j]) / len(others or [i]))
    return np.sum(costs) / (2 * len(targets))


@pytest.mark.parametrize("targets", [[5, 6, 7, 8], [5, 6, 5, 8], [5, 5, 5, 5]])
def test_duorec_equals_its_definition(targets):
    mask = jnp.ones(4, bool)
    got = duorec(FIRST, SECOND, jnp.array(targets), mask, 0.5)
    want = naive_duorec(np.asarray(FIRST), np.asarray(SECOND), targets, 0.5)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_duorec_ignores_padding():
    targets = jnp.array([5, 6, 5, 5])
    mask = jnp.array([True, True, True, False])

    def cost(first):
        return duorec(first, SECOND, targets, mask, 0.5)

    value, gradient = jax.value_and_grad(cost)(FIRST)
    want = naive_duorec(np.asarray(FIRST[:3]), np.asarray(SECOND[:3]), [5, 6, 5], 0.5)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert not gradient[3].any()
    assert jnp.isfinite(gradient).all()


def test_a_batch_of_one_target_has_a_finite_gradient():
    """There are no negatives, and nothing to learn."""
    targets, mask = jnp.full(4, 5), jnp.ones(4, bool)
    gradient = jax.grad(lambda x: duorec(x, SECOND, targets, mask, 0.5))(FIRST)
    np.testing.assert_array_equal(gradient, np.zeros((4, 2)))
