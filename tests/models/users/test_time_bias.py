"""Attention biases by the time between events."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batching.times import pad_times
from recjax.models.users import make_user_tower
from recjax.models.users.time_bias import UNKNOWN, RelativeTimeBias, time_buckets

LENGTH = 6
both_towers = pytest.mark.parametrize("name", ["transformer", "hstu"])


@pytest.fixture
def history():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, LENGTH, 8)).astype(np.float32)


MASK = np.array([[1] * 6, [0, 0, 0, 1, 1, 1]], bool)
SECONDS = [np.array([0.0, 5, 5, 90, 1e5, 1e7]), np.array([3.0, 60, 61])]
TIMES = pad_times(SECONDS, (2, LENGTH))


def make(config, name, time=True, recency=False):
    c = config.unlock().user_tower
    c.name, c.time, c.recency, c.num_layers = name, time, recency, 2
    return make_user_tower(c, LENGTH, 8, jnp.float32)


def trained(tower, history):
    """Parameters as if they were trained: none is zero."""
    variables = tower.init(jax.random.key(0), history, MASK, False)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.5 * rng.normal(size=x.shape), variables)


def test_buckets_grow_by_factors_of_two():
    times = jnp.array([[-1, 0, 0, 1, 3, 7, 2**31 - 1]])
    buckets = np.asarray(time_buckets(times))[0]
    assert (buckets == buckets.T).all()
    assert buckets[1].tolist() == [UNKNOWN, 1, 1, 2, 3, 4, 32]
    assert (buckets[0] == UNKNOWN).all()
    # 2^31 - 2 seconds: the sign of a difference has no effect.
    assert buckets[3, 6] == 32


def test_a_bias_is_that_of_its_head_and_bucket():
    module = RelativeTimeBias(2)
    variables = module.init(jax.random.key(0), TIMES)
    table = np.random.default_rng(0).normal(size=(2, 33)).astype(np.float32)
    variables["params"]["bias"] = table
    bias = module.apply(variables, TIMES)
    buckets = np.asarray(time_buckets(jnp.asarray(TIMES)))
    for b, a, h, g in np.ndindex(2, 2, LENGTH, LENGTH):
        assert bias[b, a, h, g] == table[a, buckets[b, h, g]]


@both_towers
def test_biases_add_nothing_at_first(config, history, name):
    with_times, without = make(config, name), make(config, name, time=False)
    variables = with_times.init(jax.random.key(0), history, MASK, False)
    got = with_times.apply(variables, history, MASK, False, times_BxH=TIMES)
    del variables["params"]["time_bias"]
    want = without.apply(variables, history, MASK, False)
    np.testing.assert_allclose(got, want, atol=1e-6)


@both_towers
def test_without_times_every_bucket_is_the_unknown_one(config, history, name):
    tower = make(config, name)
    variables = trained(tower, history)
    unknown = np.full_like(TIMES, -1)
    got = tower.apply(variables, history, MASK, False)
    want = tower.apply(variables, history, MASK, False, times_BxH=unknown)
    np.testing.assert_allclose(got, want, atol=1e-6)
    known = tower.apply(variables, history, MASK, False, times_BxH=TIMES)
    assert np.abs(np.asarray(got - known))[MASK].max() > 1e-2


@both_towers
def test_a_later_time_changes_nothing_before_it(config, history, name):
    tower = make(config, name)
    variables = trained(tower, history)
    later = TIMES.copy()
    later[0, 4] += 10**6
    got = tower.apply(variables, history, MASK, False, times_BxH=later)
    want = tower.apply(variables, history, MASK, False, times_BxH=TIMES)
    np.testing.assert_array_equal(got[0, :4], want[0, :4])
    assert np.abs(np.asarray(got - want))[0, 4:].max(-1).min() > 1e-5


@both_towers
@pytest.mark.parametrize("recency", [False, True])
def test_padding_and_the_start_of_the_times_have_no_effect(
    config, history, name, recency
):
    tower = make(config, name, recency=recency)
    variables = trained(tower, history)
    whole = tower.apply(variables, history, MASK, False, times_BxH=TIMES)
    cut = slice(3, None)
    moved = pad_times([1e9 + SECONDS[1]] * 2, (2, 3))
    short = tower.apply(
        variables, history[:, cut], MASK[:, cut], False, times_BxH=moved
    )
    np.testing.assert_allclose(short[1], whole[1, cut], rtol=1e-4, atol=1e-4)
