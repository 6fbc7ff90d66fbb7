"""The source of id vectors."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.models.items.tower import IdSource

pytestmark = pytest.mark.unit


def test_dropout_takes_whole_id_vectors_in_training_alone():
    source = IdSource(400, 8, jnp.float32, dropout=0.25)
    items = SimpleNamespace(items_U=np.arange(400))
    variables = source.init(jax.random.key(0), {}, items, False)
    all_UxD = np.asarray(source.apply(variables, {}, items, False))
    rngs = {"dropout": jax.random.key(1)}
    kept_UxD = np.asarray(source.apply(variables, {}, items, True, rngs=rngs))
    dropped_U = ~kept_UxD.any(axis=1)
    assert 0.15 < dropped_U.mean() < 0.35
    np.testing.assert_array_equal(kept_UxD[~dropped_U], all_UxD[~dropped_U])
    assert all_UxD.any(axis=1).all()


def test_vectors_may_start_at_zero():
    source = IdSource(5, 3, jnp.float32, start_at_zero=True)
    items = SimpleNamespace(items_U=np.arange(5))
    variables = source.init(jax.random.key(0), {}, items, False)
    assert not np.asarray(source.apply(variables, {}, items, False)).any()
