"""Light graph convolutions against the dense matrix of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.models.layers.graph import make_graph, propagate
from recjax.models.users import USER_TOWERS

pytestmark = pytest.mark.unit

EVENTS = np.array(
    [(0, 0), (0, 1), (0, 3), (1, 1), (1, 2), (2, 0), (2, 3), (2, 4), (5, 4), (5, 1)]
)
NUM_ITEMS = 6  # the last has no event; users 3 and 4 have none either


def dense_lightgcn(vectors_NxD, layers):
    """He et al., LightGCN, 2020, equations 7 and 8; layer 0 of users is zero."""
    distinct, users = np.unique(EVENTS[:, 0], return_inverse=True)
    size = len(distinct) + NUM_ITEMS
    adjacent = np.zeros((size, size))
    adjacent[users, len(distinct) + EVENTS[:, 1]] = 1
    adjacent += adjacent.T
    degree = adjacent.sum(1)
    root = np.where(degree, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    step = root[:, None] * adjacent * root[None]
    layer = np.zeros((size, vectors_NxD.shape[1]))
    layer[len(distinct) :] = vectors_NxD
    total = layer.copy()
    for _ in range(layers):
        layer = step @ layer
        total += layer
    total /= layers + 1
    return total[: len(distinct)], total[len(distinct) :]


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_lightgcn_without_user_vectors(layers, config):
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 5)).astype(np.float32)
    twice = np.concatenate([EVENTS, EVENTS[:3]])  # a pair counts once
    graph = make_graph(*twice.T, NUM_ITEMS)
    items, history = jax.jit(propagate, static_argnums=2)(vectors, graph, layers)
    want_users, want_items = dense_lightgcn(vectors, layers)
    np.testing.assert_allclose(items, want_items, rtol=2e-5, atol=1e-6)

    tower = USER_TOWERS["graph"](config.user_tower, 6, jnp.float32)
    for v, name in enumerate(np.unique(EVENTS[:, 0])):
        own = EVENTS[EVENTS[:, 0] == name, 1]
        mask = np.ones((1, len(own)), bool)
        got = tower.apply({}, history[own][None], mask, False)[0, -1]
        np.testing.assert_allclose(got, want_users[v], rtol=2e-5, atol=1e-6)
