"""The gated block of HSTU against its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from recjax.models.users.hstu import GatedBlock


def layer_norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8)
    return normed * p["scale"] + p["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def test_the_block_is_the_formula_of_the_paper():
    """Equations 1 to 3 for 3 heads of width 2, a query and a key at a time."""
    heads, width, length = 3, 6, 5
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, length, width)).astype(np.float32)
    mask = np.tril(np.ones((length, length), bool))[None].repeat(2, axis=0)
    mask[1, :, :2] = False
    bias = rng.normal(size=(2, heads, length, length)).astype(np.float32)
    block = GatedBlock(heads, 50, 0.5, jnp.float32)
    variables = block.init(jax.random.key(0), x, mask, bias, False)
    variables = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape), variables)
    got = block.apply(variables, x, mask, bias, False)
    p = jax.tree.map(np.asarray, variables["params"])
    y = layer_norm(x, p["input_norm"])
    u, v, q, k = np.split(silu(y @ p["input"]["kernel"] + p["input"]["bias"]), 4, -1)
    sums = np.zeros_like(v)
    for b, h, g in zip(*np.nonzero(mask), strict=True):
        for a in range(heads):
            own = slice(2 * a, 2 * a + 2)
            weight = silu(q[b, h, own] @ k[b, g, own] + bias[b, a, h, g]) / 50
            sums[b, h, own] += weight * v[b, g, own]
    y = u * layer_norm(sums, p["output_norm"])
    want = x + y @ p["output"]["kernel"] + p["output"]["bias"]
    real = mask.any(-1)
    np.testing.assert_allclose(got[real], want[real], rtol=1e-3, atol=1e-3)
