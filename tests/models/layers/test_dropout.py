"""Dropout's rate and scale, and attention with and without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.models.layers.attention import Attention
from recjax.models.layers.dropout import Dropout

pytestmark = pytest.mark.unit

KEY = {"dropout": jax.random.key(0)}


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rate_and_scale(rate):
    y = Dropout(rate).apply({}, jnp.ones((400, 400)), True, rngs=KEY)
    kept = np.unique(y[y != 0])
    np.testing.assert_allclose(kept, [256 / (256 - round(256 * rate))], rtol=1e-6)
    assert (y == 0).mean() == pytest.approx(rate, abs=0.005)
    assert y.mean() == pytest.approx(1, abs=0.01)


def test_nothing_is_dropped_outside_training():
    x = jnp.arange(6.0)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, False), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, True), x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_is_the_same_function_in_training(dtype):
    """A rate so small that no weight is dropped takes the path of training."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 8)), dtype) * 4
    mask = jnp.asarray(np.tril(np.ones((2, 5, 5), bool)))
    bias = jnp.asarray(rng.normal(size=(1, 2, 5, 5)), jnp.float32)
    attention = Attention(2, 1e-9, dtype)
    variables = attention.init(jax.random.key(1), x, mask, False, bias)
    want = attention.apply(variables, x, mask, False, bias)
    got = attention.apply(variables, x, mask, True, bias, rngs=KEY)
    assert got.dtype == dtype
    np.testing.assert_allclose(
        got.astype(jnp.float32), want.astype(jnp.float32), atol=1e-6
    )


def test_attention_drops_weights_in_training():
    """With one position, its weight is 1; if it is dropped, the output is the bias."""
    x, mask = jnp.ones((64, 1, 4)), jnp.ones((64, 1, 1), bool)
    attention = Attention(2, 0.5)
    variables = attention.init(jax.random.key(1), x, mask, False)
    got = attention.apply(variables, x, mask, True, rngs=KEY)
    is_zero_B = (got == 0).all((1, 2))  # both heads
    assert is_zero_B.mean() == pytest.approx(0.25, abs=0.15)
