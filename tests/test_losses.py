"""The hand-written gradient, and what the weights of in-batch negatives mean."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.losses import softmax


def plain(queries, candidates, bias, targets, mask, log_weight):
    """The docstring of `softmax`, as naive JAX that autodiff can see through."""
    logits = jnp.einsum("btd,ud->btu", queries, candidates) + bias[None, None]
    one_hot = jax.nn.one_hot(targets, len(bias)) > 0
    target = jnp.where(one_hot, logits, 0).sum(-1)
    weighted = logits + jnp.where(one_hot, 0.0, log_weight[None, None])
    return jnp.where(mask, jax.nn.logsumexp(weighted, -1) - target, 0).sum(-1)


@pytest.mark.parametrize("weights", ["all", "some"])
def test_value_and_every_gradient_equal_autodiff(weights):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(3, 4, 5)).astype(np.float32)
    candidates = rng.normal(size=(7, 5)).astype(np.float32)
    bias = rng.normal(size=7).astype(np.float32)
    targets = rng.integers(0, 7, (3, 4)).astype(np.int32)
    mask = rng.random((3, 4)) < 0.7
    log_weight = np.zeros(7, np.float32)
    if weights == "some":
        log_weight = rng.normal(size=7).astype(np.float32)
        log_weight[2] = -np.inf
        targets[0, 0] = 2  # a target that is otherwise no candidate
        mask[0, 0] = True

    def total(f):
        return lambda q, c, b: (
            f(q, c, b, targets, mask, log_weight) * jnp.array([1.0, 2.0, 3.0])
        ).sum()

    args = (queries, candidates, bias)
    value, grads = jax.value_and_grad(total(softmax), (0, 1, 2))(*args)
    expected, expected_grads = jax.value_and_grad(total(plain), (0, 1, 2))(*args)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for got, want in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_one_value_per_user():
    loss_B = softmax(
        jnp.ones((2, 3, 4)),
        jnp.ones((5, 4)),
        jnp.zeros(5),
        jnp.zeros((2, 3), jnp.int32),
        jnp.array([[True, True, False], [False, False, False]]),
        jnp.zeros(5),
    )
    np.testing.assert_allclose(loss_B, [2 * np.log(5), 0], rtol=1e-6)


def test_large_scores_stay_finite():
    def f(scale):
        return softmax(
            jnp.ones((1, 1, 1)) * scale,
            jnp.array([[1.0], [-1.0]]),
            jnp.zeros(2),
            jnp.ones((1, 1), jnp.int32),
            jnp.ones((1, 1), bool),
            jnp.zeros(2),
        ).sum()

    value, grad = jax.value_and_grad(f)(500.0)
    np.testing.assert_allclose(value, 1000.0)
    np.testing.assert_allclose(grad, 2.0)


def test_logq_makes_the_partition_sum_unbiased():
    """Every batch of 2 of 4 rows, enumerated: the mean over batches of the weighted
    sum equals the sum over the catalogue; without the correction it does not."""
    row_targets = np.array([0, 0, 1, 2])
    exp_scores = np.exp([0.3, -1.0, 0.7])
    expected_counts = np.bincount(row_targets) * 2 / 4

    def mean_sum(weigh):
        sums = []
        for batch in itertools.combinations(range(4), 2):
            counts = np.bincount(row_targets[list(batch)], minlength=3)
            sums.append((weigh(counts) * exp_scores).sum())
        return np.mean(sums)

    np.testing.assert_allclose(
        mean_sum(lambda c: c / expected_counts), exp_scores.sum()
    )
    assert abs(mean_sum(lambda c: c) - exp_scores.sum()) > 0.1
