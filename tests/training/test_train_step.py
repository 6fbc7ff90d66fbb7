"""The train step: dropout, averaged weights, and its compiled program."""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from recjax.data.batching.types import Batch
from recjax.data.text.packing import Items
from recjax.losses.softmax import softmax
from recjax.models.layers.dropout import Dropout
from recjax.runtime import compiler as compiler_lib
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import make_mesh
from recjax.training.train_step import (
    LossMonitor,
    TrainState,
    directional_variance,
    train_step,
)

MESH = make_mesh(ConfigDict({"data": 1, "model": 1}))


class Scorer(nn.Module):
    """Three items, one learned vector, dropout on the query."""

    @nn.compact
    def __call__(self, catalogue, batch, train):
        del catalogue
        weight_D = self.param("weight", nn.initializers.ones, (16,))
        queries_PxD = jnp.broadcast_to(weight_D, (*batch.targets_P.shape, 16))
        queries_PxD = Dropout(0.5)(queries_PxD, train)
        return queries_PxD, jnp.eye(3, 16), jnp.zeros(3), {}


BATCH = Batch(
    history_BxH=np.zeros((4, 2), np.int32),
    mask_BxH=np.ones((4, 2), bool),
    hidden_BxH=None,
    targets_P=np.ones(8, np.int32),
    position_P=np.arange(8, dtype=np.int32),
    label_P=None,
    examples_B=np.arange(4, dtype=np.int32),
    items=Items(np.arange(3), np.zeros(3, np.float32), None),
)


def one_step(step=0, ema=0.0, lr=0.1):
    params = {"weight": jnp.ones(16)}
    tx = optax.sgd(lr)
    average = {"weight": jnp.zeros(16)} if ema else {}
    monitor = LossMonitor(jnp.float32(0), jnp.int32(0), jnp.int32(0))
    state = TrainState(jnp.int32(step), params, average, tx.init(params), monitor)
    key = jax.random.key(0)
    return train_step(
        state,
        {},
        {},
        BATCH,
        key,
        model=Scorer(),
        loss=softmax,
        tx=tx,
        ema=ema,
        spike=0.0,
    )


def test_dropout_depends_on_the_step():
    first, again, next_step = (float(one_step(i)[1]["loss"]) for i in (0, 0, 1))
    assert first == again != next_step


def test_the_average_moves_towards_the_weights():
    state, _ = one_step(ema=0.75)
    assert int(state.step) == 1
    assert np.abs(np.asarray(state.trainable["weight"]) - 1).max() > 1e-3
    want = 0.25 * state.trainable["weight"]
    np.testing.assert_allclose(state.average["weight"], want, rtol=1e-6)
    assert state.result is state.average
    without, _ = one_step()
    assert without.result is without.trainable


def test_directional_variance_is_the_circular_variance():
    vectors = jnp.array([[1.0, 0], [0, 2], [-3, 0], [0, -4], [9, 9]])
    mask = jnp.array([True, True, False, False, False])
    assert float(directional_variance(vectors, mask)) == pytest.approx(1 - 0.5**0.5)
    every = jnp.array([True] * 4 + [False])
    assert float(directional_variance(vectors, every)) == pytest.approx(1)
    assert (
        float(directional_variance(vectors[4:] * jnp.ones((3, 1)), mask[:3] | True))
        < 1e-6
    )
    assert float(directional_variance(vectors[:1], mask[:1])) == 1


def test_a_shape_is_compiled_once_and_logged(monkeypatch):
    lines = []
    monkeypatch.setattr(compiler_lib, "SLOW_SECONDS", 0.05)
    compiler = Compiler(lines.append, MESH)

    def slow(x):
        time.sleep(0.5)  # while it is traced
        return x * 2

    double = compiler("double", slow)
    for size in (2, 3, 2):
        np.testing.assert_array_equal(double(jnp.ones(size)), np.full(size, 2.0))
    assert len(double) == 2
    assert lines == ["compiling double ..."] * 2
    assert compiler.seconds > 1
