"""Losses against naive versions of their docstrings, in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from recjax.losses import LOSSES
from recjax.losses.base import LossInputs
from recjax.losses.bce import bce, gbce_beta
from recjax.losses.softmax import softmax as loss_of

pytestmark = pytest.mark.unit


def softmax(*args, **options):
    return loss_of(LossInputs(*args), **options)


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
    chunked = functools.partial(softmax, chunk=chunk)
    value, grads = jax.jit(jax.value_and_grad(total(chunked), (0, 1, 2)))(*args)
    naive = jax.jit(jax.value_and_grad(total(plain), (0, 1, 2)))
    expected, expected_grads = naive(*args)
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

    value, grad = jax.jit(jax.value_and_grad(f))(500.0)
    np.testing.assert_allclose(value, 1000.0)
    np.testing.assert_allclose(grad, 2.0)


def test_masked_queries_do_not_matter():
    """A non-finite query at a masked target."""

    def f(queries):
        mask = jnp.array([False, True])
        targets, zeros = jnp.zeros(2, jnp.int32), jnp.zeros(2)
        return softmax(queries, jnp.eye(2), zeros, targets, mask, zeros).sum()

    value, grad = jax.jit(jax.value_and_grad(f))(
        jnp.array([[jnp.nan, jnp.inf], [1.0, 2.0]])
    )
    np.testing.assert_allclose(value, np.log(1 + np.e), rtol=1e-6)
    assert not grad[0].any()
    assert jnp.isfinite(grad).all()


def test_no_more_than_a_chunk_of_scores_exists():
    """Memory besides the table and its gradient does not grow with the catalogue."""

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
    assert more < 3 * 10_000 * 4 / 2**20  # a few numbers per item, no second table


def random_case(num_targets=12, num_items=7, seed=0):
    rng = np.random.default_rng(seed)
    return LossInputs(
        rng.normal(size=(num_targets, 5)).astype(np.float32),
        rng.normal(size=(num_items, 5)).astype(np.float32),
        rng.normal(size=num_items).astype(np.float32),
        rng.integers(0, num_items, num_targets).astype(np.int32),
        rng.random(num_targets) < 0.7,
        rng.normal(size=num_items).astype(np.float32),
    )


def plain_bce(s, k, beta):
    """The docstring of `bce`, score by score."""
    out = np.zeros(len(s.targets_P))
    for p, target in enumerate(s.targets_P):
        if not s.mask_P[p]:
            continue
        scores = s.candidates_UxD @ s.queries_PxD[p] + s.bias_U + np.log(beta / k)
        others = [u for u in range(len(scores)) if u != target]
        weight = np.exp(s.log_weight_U[others])
        negatives = (weight * np.log1p(np.exp(scores[others]))).sum() / weight.sum()
        out[p] = beta * np.log1p(np.exp(-scores[target])) + k * negatives
    return out


@pytest.mark.parametrize("chunk", [1024, 7, 3, 1])
@pytest.mark.parametrize(("k", "beta"), [(1, 1.0), (4, 0.3)])
def test_bce_equals_its_definition(chunk, k, beta):
    s = random_case()
    s.log_weight_U[2] = -np.inf
    got = bce(s, num_negatives=k, beta=beta, chunk=chunk)
    np.testing.assert_allclose(got, plain_bce(s, k, beta), rtol=2e-6)

    def total(queries_PxD, chunk):
        moved = s._replace(queries_PxD=queries_PxD)
        return bce(moved, num_negatives=k, chunk=chunk).sum()

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    whole, parts = (gradient(s.queries_PxD, size) for size in (1024, chunk))
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)


def test_bce_is_the_expectation_over_sampled_negatives():
    """All pairs of k = 2 sampled negatives, enumerated."""
    s = random_case(num_targets=3, num_items=5)._replace(
        log_weight_U=np.zeros(5, np.float32), mask_P=np.ones(3, bool)
    )
    for p, target in enumerate(s.targets_P):
        scores = s.candidates_UxD @ s.queries_PxD[p] + s.bias_U - np.log(2)
        cost = np.log1p(np.exp(scores))
        others = [u for u in range(5) if u != target]
        pairs = [cost[a] + cost[b] for a in others for b in others]
        want = np.log1p(np.exp(-scores[target])) + np.mean(pairs)
        np.testing.assert_allclose(bce(s, num_negatives=2)[p], want, rtol=1e-6)


@pytest.mark.parametrize(("k", "beta"), [(1, 1.0), (256, 0.3)])
def test_bce_starts_at_the_ratio_of_targets_and_negatives(k, beta):
    s = random_case()
    s = s._replace(queries_PxD=np.zeros_like(s.queries_PxD))

    def cost(level):
        return bce(
            s._replace(bias_U=jnp.full_like(s.bias_U, level)),
            num_negatives=k,
            beta=beta,
        )

    slope = jax.grad(lambda level: cost(level).sum())
    np.testing.assert_allclose(slope(0.0), 0, atol=1e-4)
    assert slope(1.0) > 0.1 * beta > -0.1 * beta > slope(-1.0)


def test_gbce_without_calibration_is_bce():
    assert gbce_beta(4, 0.0, 100) == pytest.approx(1.0)
    assert gbce_beta(4, 1.0, 101) == pytest.approx(0.04)
    # (0.5 (1 - 1 / a) + 1 / a) a = (1 + a) / 2, with a = 4 / 100
    assert gbce_beta(4, 0.5, 101) == pytest.approx(0.52)
    c = ConfigDict({"negatives_per_positive": 4, "gbce_t": 0.0, "chunk": 3})
    s = random_case()
    plain, calibrated = (LOSSES[name](c, 100)(s) for name in ("bce", "gbce"))
    np.testing.assert_allclose(plain, calibrated, rtol=1e-6)
    c.gbce_t = 0.75
    assert np.abs(plain - LOSSES["gbce"](c, 100)(s)).max() > 0.1


def test_rating_depends_on_the_target_alone():
    s = random_case()
    label = (np.arange(12) % 2).astype(np.float32)
    got = LOSSES["rating"](None, 7)(s._replace(label_P=label))
    for p, target in enumerate(s.targets_P):
        score = s.candidates_UxD[target] @ s.queries_PxD[p] + s.bias_U[target]
        sign = 1 if label[p] else -1
        want = np.log1p(np.exp(-sign * score)) if s.mask_P[p] else 0.0
        np.testing.assert_allclose(got[p], want, rtol=2e-6)


@pytest.mark.parametrize("name", ["bce", "gbce", "rating"])
def test_masked_queries_do_not_matter_in_other_losses(name):
    c = ConfigDict({"negatives_per_positive": 2, "gbce_t": 0.5, "chunk": 2})
    loss, label = LOSSES[name](c, 7), np.ones(12, np.float32)
    s = random_case()._replace(label_P=label)
    queries = s.queries_PxD.copy()
    queries[~s.mask_P] = np.nan
    value, grad = jax.value_and_grad(lambda q: loss(s._replace(queries_PxD=q)).sum())(
        queries
    )
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    assert not grad[~s.mask_P].any()
