"""Whitening against its definition, also with fewer items than dimensions."""

import numpy as np
import pytest

from recjax.catalogue import whitening
from recjax.catalogue.whitening import whiten

pytestmark = pytest.mark.unit


def crowded(num, width):
    """Vectors in a narrow cone, with variances that differ a hundredfold."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(width, width)))
    x = rng.normal(size=(num, width)) * np.logspace(0, -1, width) @ axes
    return (x + 10 * rng.normal(size=width)).astype(np.float32)


@pytest.mark.parametrize("chunk_size", [2**16, 100])
def test_mean_is_zero_and_covariance_the_identity(monkeypatch, chunk_size):
    monkeypatch.setattr(whitening, "CHUNK_SIZE", chunk_size)
    x = crowded(500, 12)
    white = whiten(x)
    assert white.dtype == np.float32
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(12), atol=1e-3)
    assert np.abs(np.corrcoef(x.T) - np.eye(12)).max() > 0.3  # it was not before
    # ZCA: each feature correlates most with itself, unlike the features of PCA.
    across = np.corrcoef(x.T, white.T)[:12, 12:]
    assert (across.argmax(1) == np.arange(12)).all()


def test_whitening_commutes_with_rotation():
    x = crowded(500, 12)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))
    turned = whiten((x @ turn).astype(np.float32))
    np.testing.assert_allclose(turned, whiten(x) @ turn, atol=1e-3)


@pytest.mark.parametrize("num", [1, 2, 7, 12])
def test_fewer_items_than_features(num):
    white = whiten(crowded(num, 12))
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(white.T, bias=True))
    np.testing.assert_allclose(variances[12 - num + 1 :], 1, atol=1e-2)
    np.testing.assert_allclose(variances[: 12 - num + 1], 0, atol=1e-6)


def test_vectors_after_a_layer_norm_lose_one_direction():
    x = np.random.default_rng(0).normal(size=(500, 12))
    x -= x.mean(1, keepdims=True)
    white = whiten((x * np.linspace(0.5, 2, 12) + 3).astype(np.float32))
    variances = np.linalg.eigvalsh(np.cov(white.T, bias=True))
    np.testing.assert_allclose(variances, [0, *[1] * 11], atol=1e-3)


def test_items_with_the_same_text_become_zero():
    np.testing.assert_array_equal(whiten(np.ones((5, 3), np.float32)), np.zeros((5, 3)))


def test_power_between_centring_and_whitening():
    """At power 1/2 every principal deviation becomes its square root."""
    x = crowded(200, 6)
    half = whiten(x, 0.5).astype(np.float64)
    before = np.linalg.svd(x - x.mean(0), compute_uv=False) / np.sqrt(len(x))
    after = np.linalg.svd(half, compute_uv=False) / np.sqrt(len(x))
    np.testing.assert_allclose(after, np.sqrt(before), rtol=1e-2)
    np.testing.assert_allclose(whiten(x, 0.0), x - x.mean(0), atol=1e-5)
