"""The hand-written gradient, and what the weights of in-batch negatives mean."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.losses import softmax


def plain(queries, candidates, bias, targets, mask, log_weight, *, smoothing):
    """The docstring of `softmax`, as naive JAX that autodiff can see through."""
    logits = queries @ candidates.T + bias[None]
    one_hot = jax.nn.one_hot(targets, len(bias)) > 0
    weighted = logits + jnp.where(one_hot, 0.0, log_weight[None])
    label = (1 - smoothing) * one_hot
    label += smoothing * (jnp.exp(log_weight) / jnp.exp(log_weight).sum())[None]
    logprob = logits - jax.nn.logsumexp(weighted, -1, keepdims=True)
    return jnp.where(mask, -(label * logprob).sum(-1), 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", ["all", "some"])
@pytest.mark.parametrize("chunk", [100, 7, 3, 2, 1])
def test_value_and_every_gradient_equal_autodiff(chunk, weights, smoothing):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(12, 5)).astype(np.float32)
    candidates = rng.normal(size=(7, 5)).astype(np.float32)
    bias = rng.normal(size=7).astype(np.float32)
    targets = rng.integers(0, 7, 12).astype(np.int32)
    mask = rng.random(12) < 0.7
    log_weight = np.zeros(7, np.float32)
    if weights == "some":
        log_weight = rng.normal(size=7).astype(np.float32)
        log_weight[2] = -np.inf
        targets[0] = 2  # a target that is otherwise no candidate
        mask[0] = True

    def total(f):
        return lambda q, c, b: (
            f(q, c, b, targets, mask, log_weight, smoothing=smoothing)
            * (1.0 + jnp.arange(12) % 3)
        ).sum()

    args = (queries, candidates, bias)
    value, grads = jax.value_and_grad(
        total(functools.partial(softmax, chunk=chunk)), (0, 1, 2)
    )(*args)
    expected, expected_grads = jax.value_and_grad(total(plain), (0, 1, 2))(*args)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for got, want in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_one_value_per_target():
    loss_P = softmax(
        jnp.ones((3, 4)),
        jnp.ones((5, 4)),
        jnp.zeros(5),
        jnp.zeros(3, jnp.int32),
        jnp.array([True, True, False]),
        jnp.zeros(5),
    )
    np.testing.assert_allclose(loss_P, [np.log(5)] * 2 + [0], rtol=1e-6)


def test_large_scores_stay_finite():
    def f(scale):
        return softmax(
            jnp.ones((1, 1)) * scale,
            jnp.array([[1.0], [-1.0]]),
            jnp.zeros(2),
            jnp.ones(1, jnp.int32),
            jnp.ones(1, bool),
            jnp.zeros(2),
        ).sum()

    value, grad = jax.value_and_grad(f)(500.0)
    np.testing.assert_allclose(value, 1000.0)
    np.testing.assert_allclose(grad, 2.0)


def test_what_is_masked_leaves_no_trace():
    """A query that is not finite, where no target counts."""

    def f(queries):
        mask = jnp.array([False, True])
        targets, zeros = jnp.zeros(2, jnp.int32), jnp.zeros(2)
        return softmax(queries, jnp.eye(2), zeros, targets, mask, zeros).sum()

    value, grad = jax.value_and_grad(f)(jnp.array([[jnp.nan, jnp.inf], [1.0, 2.0]]))
    np.testing.assert_allclose(value, np.log(1 + np.e), rtol=1e-6)
    assert not grad[0].any()
    assert jnp.isfinite(grad).all()


def test_no_more_than_a_chunk_of_scores_exists():
    """Beside the table and its gradient memory does not grow with the catalogue."""

    def temporaries(num_items):
        args = (
            jnp.ones((256, 16)),
            jnp.ones((num_items, 16)),
            jnp.zeros(num_items),
            jnp.zeros(256, jnp.int32),
            jnp.ones(256, bool),
            jnp.zeros(num_items),
        )
        f = functools.partial(softmax, chunk=256)
        grad = jax.grad(lambda *a: f(*a, *args[3:]).sum(), (0, 1, 2))
        compiled = jax.jit(grad).lower(*args[:3]).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    scores = 256 * 10_000 * 4 / 2**20
    assert temporaries(10_000) < scores / 4
    more = temporaries(20_000) - temporaries(10_000)
    assert more < 3 * 10_000 * 4 / 2**20  # some numbers an item, no second table
