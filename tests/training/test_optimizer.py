"""Freezing, multipliers, decay and schedules."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recjax.common.errors import UserError
from recjax.config import base
from recjax.training import optimizer

pytestmark = pytest.mark.unit

ENCODER = base.ENCODER
PARAMS = {
    ENCODER + "embeddings/word/embedding": jnp.ones((3, 2)),
    **{f"{ENCODER}layer_{i}/mlp_up/kernel": jnp.ones((2, 2)) for i in range(6)},
    ENCODER + "pool/kernel": jnp.ones((2, 2)),
    "users/norm/scale": jnp.ones(2),
    "head/bilinear/kernel": jnp.ones((2, 2)),
}


def make(lr_mults, **changes):
    config = base.get_config().optim.copy_and_resolve_references().unlock()
    phase = base.phase("p", lr_mults=lr_mults, lr=0.1)
    for key, value in changes.items():
        (config if key in config else phase)[key] = value
    rules = optimizer.resolve_rules(config, phase, list(PARAMS))
    return rules, optimizer.make_optimizer(config, phase, rules, 10)


@pytest.mark.parametrize(
    ("what", "trained"),
    [
        ("all", ""),
        ("none", "e012345p"),
        ("embeddings", "012345p"),
        (2, "45p"),
        (0, ""),
    ],
)
def test_freezing_presets(what, trained):
    rules, _ = make(base.freeze(what, layers=6, encoder=0.1))
    for path, mult in rules.lr_mults.items():
        if not path.startswith(ENCODER):
            assert mult == 1.0
        else:
            name = path.removeprefix(ENCODER).removeprefix("layer_")[0]
            assert mult == (0.1 if name in trained else None), path
    trainable, frozen = rules.split(PARAMS)
    assert trainable.keys() | frozen.keys() == PARAMS.keys()


@pytest.mark.parametrize("what", ["lora", "bias"])
def test_presets_by_leaf(what):
    stem = ENCODER + "layer_1/attention/query/"
    leaves = ("kernel", "bias", "lora_a", "lora_b")
    paths = [*PARAMS, "users/norm/bias", *(stem + leaf for leaf in leaves)]
    phase = base.phase("p", lr_mults=base.freeze(what, encoder=0.1))
    rules = optimizer.resolve_rules(base.get_config().optim, phase, paths)
    found = {path for path, mult in rules.lr_mults.items() if mult == 0.1}
    assert found == {
        "lora": {stem + "lora_a", stem + "lora_b"}, "bias": {stem + "bias"}
    }[what]  # fmt: skip
    for path in paths:
        assert (rules.lr_mults[path] == 1.0) == (not path.startswith(ENCODER)), path


def test_a_rule_that_trains_nothing_is_refused():
    with pytest.raises(
        UserError, match=r"'items/text/encoder/layer_9/\.\*' matches no"
    ):
        make(((ENCODER + r"layer_9/.*", 0.1), (r".*", 1.0)))
    with pytest.raises(UserError, match=r"'items/text/encodr/\.\*' matches no"):
        make(((r"items/text/encodr/.*", None), (r".*", 1.0)))
    with pytest.raises(UserError, match=r"optim.wd_mults: '\.\*/kernl' matches no"):
        make(((r".*", 1.0),), wd_mults=((r".*/kernl", 1.0), (r".*", 0.0)))
    with pytest.raises(UserError, match=r"multiplier '0\.1' is not a number"):
        make(((r".*", "0.1"),))
    with pytest.raises(UserError, match=r"wd_mults: multiplier None is not a number"):
        make(((r".*", 1.0),), wd_mults=((r".*", None),))
    for mult in (-1.0, math.nan, math.inf, True):
        with pytest.raises(UserError, match=r"lr_mults: multiplier \S+ is not"):
            make(((r".*", mult),))
    with pytest.raises(ValueError, match="freeze: 2 is invalid for layers=None"):
        base.freeze(2)


def test_nothing_to_freeze_where_items_have_no_text():
    config, paths = base.get_config().optim, ["users/norm/scale"]
    rules = optimizer.resolve_rules(config, base.phase("p"), paths)
    assert rules.lr_mults == {"users/norm/scale": 1.0}


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_frozen_weights_have_no_optimizer_state(name):
    rules, opt = make(base.freeze("all"), name=name)
    trainable, frozen = rules.split(PARAMS)
    state = str(jax.tree.flatten_with_path(opt.tx.init(trainable))[0])
    assert frozen
    assert all(path in state for path in trainable)
    assert not any(path in state for path in frozen)


def sgd(lr, weight_decay):
    """SGD whose weight decay, like that of AdamW, has no momentum."""
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(optax.trace(0.8), decay, optax.scale(-lr))


REFERENCES = {"adamw": functools.partial(optax.adamw, b1=0.8, b2=0.95), "sgd": sgd}


@pytest.mark.parametrize("name", REFERENCES)
def test_multipliers_and_several_steps_equal_optax(name):
    """The first step alone would not show the decay of the moments."""
    options = {"name": name, "b1": 0.8, "b2": 0.95, "momentum": 0.8}
    rules = ((r"head/.*", 0.5), (r".*", 1.0))
    _, opt = make(rules, **options, weight_decay=0.3, clip_norm=0.0)
    grads = [
        {path: jnp.full_like(x, g) for path, x in PARAMS.items()}
        for g in (0.2, -0.5, 0.1)
    ]
    state, updates = opt.tx.init(PARAMS), []
    for each in grads:
        update, state = opt.tx.update(each, state, PARAMS)
        updates.append(update)
    for path, x in PARAMS.items():
        lr = 0.05 if path.startswith("head") else 0.1
        decay = 0.3 if path.endswith("kernel") else 0.0
        reference = REFERENCES[name](lr, weight_decay=decay)
        state = reference.init(x)
        for each, update in zip(grads, updates, strict=True):
            want, state = reference.update(each[path], state, x)
            np.testing.assert_allclose(update[path], want, rtol=2e-6, err_msg=path)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor"])
def test_every_optimizer_descends(name):
    _, opt = make(((r".*", 1.0),), name=name, lr=0.01)
    params, state = PARAMS, opt.tx.init(PARAMS)

    def loss(p):
        return sum((x**2).sum() for x in p.values())

    first = loss(params)
    for _ in range(5):
        grads = {path: 2 * x for path, x in params.items()}
        updates, state = opt.tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert loss(params) < first


def test_clipping_bounds_the_step():
    _, free = make(((r".*", 1.0),), name="sgd", momentum=0.0, clip_norm=0.0)
    _, clipped = make(((r".*", 1.0),), name="sgd", momentum=0.0, clip_norm=1.0)
    grads = {path: jnp.full_like(x, 100.0) for path, x in PARAMS.items()}
    for opt, bound in ((free, None), (clipped, 0.1)):
        no_decay = {path: jnp.zeros_like(x) for path, x in PARAMS.items()}
        updates, _ = opt.tx.update(grads, opt.tx.init(PARAMS), no_decay)
        norm = float(optax.tree.norm(updates))
        assert norm > 1 if bound is None else abs(norm - bound) < 1e-6


def test_schedules():
    def rates(**changes):
        phase = base.phase("p", lr=1.0, **changes)
        schedule = optimizer.make_schedule(phase, 10)
        return [round(float(schedule(i)), 4) for i in range(11)]

    assert rates() == [1.0] * 11
    assert rates(warmup=0.4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(schedule="linear")[::5] == [1.0, 0.5, 0.0]
    assert rates(schedule="cosine")[::5] == [1.0, 0.5, 0.0]
    assert rates(schedule="linear", warmup=0.5)[5:] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


def test_rare_rows_move_in_proportion_to_their_gradients():
    """With a shared second moment; Adam moves every row by the learning rate."""
    word = ENCODER + "embeddings/word/embedding"
    grads = jax.tree.map(jnp.zeros_like, PARAMS)
    grads[word] = jnp.array([[1.0, 1.0], [0.1, 0.1], [1e-3, 1e-3]])
    moved = {}
    for shared in ((), (r".*/word/embedding",)):
        _, made = make(base.freeze("none"), shared_moment=shared, weight_decay=0.0)
        state = made.tx.init(PARAMS)
        params = PARAMS
        for _ in range(3):
            updates, state = made.tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        moved[shared] = np.abs(np.asarray(params[word] - PARAMS[word]))[:, 0]
    own, shared = moved.values()
    np.testing.assert_allclose(own, 0.3, rtol=1e-3)
    np.testing.assert_allclose(shared / shared[0], [1, 0.1, 1e-3], rtol=1e-3)
    # The root mean square of a step is that of Adam.
    assert np.sqrt((shared**2).mean()) == pytest.approx(0.3, rel=1e-3)


def test_shared_moment_that_matches_nothing_is_refused():
    with pytest.raises(
        UserError, match=r"optim\.shared_moment: 'items/ids' matches no"
    ):
        make(base.freeze("none"), shared_moment=("items/ids",))


def test_layer_decay():
    rules = base.freeze(2, layers=6, encoder=0.1, layer_decay=0.5)
    mults = make(rules)[0].lr_mults
    found = [mults[f"{ENCODER}layer_{i}/mlp_up/kernel"] for i in range(6)]
    assert found == [None, None, None, None, 0.05, 0.1]
    assert mults[ENCODER + "pool/kernel"] == 0.1
    rules = base.freeze("none", layers=6, layer_decay=0.5)
    mults = make(rules)[0].lr_mults
    found = [mults[f"{ENCODER}layer_{i}/mlp_up/kernel"] for i in range(6)]
    assert found == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    assert mults[ENCODER + "embeddings/word/embedding"] == 1 / 64
    # A model that takes the mean of the states has no pooling.
    paths = [path for path in PARAMS if "/pool/" not in path]
    phase = base.phase("p", lr_mults=rules)
    config = base.get_config().optim
    assert optimizer.resolve_rules(config, phase, paths).trained_paths()
    with pytest.raises(ValueError, match="layer_decay with 'lora'"):
        base.freeze("lora", layers=6, layer_decay=0.5)
    with pytest.raises(ValueError, match="layer_decay with 7 and layers=6"):
        base.freeze(7, layers=6, layer_decay=0.5)


def test_an_anchor_holds_the_encoder_near_its_start():
    """And nothing else."""
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    ends = {}
    for anchor in (0.0, 10.0):
        rules = base.freeze("none")
        plain = {"name": "sgd", "weight_decay": 0.0, "momentum": 0.0, "clip_norm": 0.0}
        _, made = make(rules, anchor=anchor, **plain)
        params, state = PARAMS, made.tx.init(PARAMS)
        for _ in range(50):
            updates, state = made.tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        ends[anchor] = params
    word, scale = ENCODER + "embeddings/word/embedding", "users/norm/scale"
    np.testing.assert_allclose(ends[0.0][word] - PARAMS[word], -5, rtol=1e-4)
    # The gradient and the pull of 10 times the distance are equal there.
    np.testing.assert_allclose(ends[10.0][word] - PARAMS[word], -0.1, rtol=1e-3)
    np.testing.assert_array_equal(ends[10.0][scale], ends[0.0][scale])
