"""One step: its randomness, its average, and what it compiles."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from recjax.data.batches import Batch, Items
from recjax.losses import softmax
from recjax.models.dropout import Dropout
from recjax.steps import Compiler, TrainState, train_step


class Scorer(nn.Module):
    """Three items, one learned vector, dropout on the query."""

    @nn.compact
    def __call__(self, catalogue, batch, train):
        del catalogue
        weight_D = self.param("weight", nn.initializers.ones, (16,))
        queries_PxD = jnp.broadcast_to(weight_D, (*batch.targets_P.shape, 16))
        queries_PxD = Dropout(0.5)(queries_PxD, train)
        return queries_PxD, jnp.eye(3, 16), jnp.zeros(3)


BATCH = Batch(
    history_BxH=np.zeros((4, 2), np.int32),
    mask_BxH=np.ones((4, 2), bool),
    targets_P=np.ones(8, np.int32),
    place_P=np.arange(8, dtype=np.int32),
    items=Items(np.arange(3), np.zeros(3, np.float32), None),
)


def one_step(step=0, ema=0.0, lr=0.1):
    params = {"weight": jnp.ones(16)}
    tx = optax.sgd(lr)
    average = {"weight": jnp.zeros(16)} if ema else {}
    state = TrainState(jnp.int32(step), params, average, tx.init(params))
    key = jax.random.key(0)
    return train_step(
        state, {}, {}, BATCH, key, model=Scorer(), loss=softmax, tx=tx, ema=ema
    )


def test_dropout_is_that_of_the_step():
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


def test_a_shape_is_compiled_once_and_said():
    said = []
    compiler = Compiler(said.append)
    double = compiler("double", lambda x: x * 2)
    for size in (2, 3, 2):
        np.testing.assert_array_equal(double(jnp.ones(size)), np.full(size, 2.0))
    assert len(double) == 2
    assert said[0::2] == ["compiling double ..."] * 2
    assert compiler.seconds > 0
