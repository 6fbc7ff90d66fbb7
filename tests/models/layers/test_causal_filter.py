"""The causal filter against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.models.layers.causal_filter import CausalFilter

pytestmark = pytest.mark.unit


def test_against_loops():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    layer = CausalFilter(window=3)
    params = layer.init(jax.random.key(0), x, mask)["params"]
    params = jax.tree.map(lambda p: p + rng.normal(size=p.shape), params)
    found = layer.apply({"params": params}, jnp.asarray(x), jnp.asarray(mask))
    weight, scale = np.exp(params["log_weight"]), params["scale"]
    for b, row in enumerate(x):
        for h in np.flatnonzero(mask[b]):
            ages = [age for age in range(3) if h >= age and mask[b, h - age]]
            total = sum(weight[age] for age in ages)
            low = sum(weight[age] * row[h - age] for age in ages) / total
            want = low + scale**2 * (row[h] - low)
            np.testing.assert_allclose(found[b, h], want, rtol=1e-5, atol=1e-5)
