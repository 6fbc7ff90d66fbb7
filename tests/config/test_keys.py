"""Config keys have an effect: each changes the first training step."""

import time

import jax
import numpy as np
import pytest

from recjax.config import base
from recjax.run.setup import open_run, trained_phases
from recjax.training.make_phase import make_phase

TEXTS = {"item_tower.sources": ("text",)}


def tuned(what):
    """Phases that train a part of the encoder."""
    rules = base.freeze(what, layers=3)
    return (base.phase("p", epochs=1, lr=1e-2, lr_mults=rules),)


def first_step(config, folder):
    """Its loss, the initial parameters, the examples and the dropout key."""
    folder.mkdir()
    with open_run(config, folder, time.perf_counter()) as (r, params):
        phase, state = make_phase(r, 0, trained_phases(config)[0], params, 0)
        batch = next(iter(phase.batches))
        catalogue, placed = phase.place(batch)
        inputs = (
            catalogue,
            placed,
            phase.dropout_key,
        )
        _, values = phase.step(state, phase.frozen, *inputs)
        key = jax.random.key_data(phase.dropout_key)
        params = {path: np.asarray(x) for path, x in params.items()}
        return float(values["loss"]), params, batch.examples_B.tolist(), key.tolist()


@pytest.fixture(scope="module")
def loss_of(tmp_path_factory):
    """The loss of the first step by config, computed once."""
    losses = {}

    def compute(config):
        text = config.to_json()
        if text not in losses:
            folder = tmp_path_factory.mktemp("run") / "first"
            losses[text] = first_step(config, folder)[0]
        return losses[text]

    return compute


@pytest.fixture
def start(config):
    """A model of ids, with as many random draws as possible."""
    c = config.unlock()
    c.item_tower.sources, c.train.batch_size = ("id",), 8
    c.loss.negatives, c.loss.num_negatives = "uniform", 5
    c.user_tower.num_layers, c.user_tower.mask_share = 2, 0.3
    c.train.phases = (base.phase("p", epochs=1, lr=1e-2),)
    return c.lock()


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("augment.rate", 1.0, {"augment.crop": 0.4}),
        ("augment.crop", 0.5, {"augment.rate": 1.0}),
        ("augment.mask", 0.5, {"augment.rate": 1.0}),
        ("augment.reorder", 0.5, {"augment.rate": 1.0}),
        (
            "augment.neighbours",
            1,
            {**TEXTS, "augment.rate": 1.0, "augment.substitute": 0.5},
        ),
        ("augment.token_dropout", 0.5, {**TEXTS, "train.phases": tuned("none")}),
        ("augment.token_span", 0.5, {**TEXTS, "train.phases": tuned(1)}),
        ("data.reverse", 0.9, {}),
        ("data.shuffle_ties", False, {}),
        ("data.windows", "last", {"data.history_length": 3}),
        ("head.temperature", 0.5, {}),
        ("loss.gbce_t", 0.1, {"loss.name": "gbce", "loss.negatives_per_positive": 4}),
        ("loss.negatives_per_positive", 4, {"loss.name": "bce"}),
        ("loss.logq", False, {}),
        ("loss.num_negatives", 3, {}),
        ("loss.smoothing", 0.1, {}),
        ("user_tower.dropout", 0.0, {}),
        ("user_tower.dropout", 0.0, {"user_tower.name": "gru"}),
        ("user_tower.hidden", 3, {"user_tower.name": "additive"}),
        ("user_tower.kernel_size", 2, {"user_tower.name": "cnn"}),
        ("user_tower.mask_share", 0.9, {"user_tower.name": "bert4rec"}),
        ("user_tower.mlp_ratio", 2, {}),
        ("user_tower.num_heads", 1, {}),
        ("user_tower.num_layers", 1, {}),
        ("user_tower.num_layers", 1, {"user_tower.name": "cnn"}),
        ("user_tower.num_layers", 1, {"user_tower.name": "gru"}),
        (
            "user_tower.num_layers",
            1,
            {"user_tower.name": "graph", "loss.negatives": "all"},
        ),
    ],
)
def test_a_key_changes_the_loss(start, loss_of, key, value, where):
    c = start.unlock()
    c.update_from_flattened_dict(where)
    before = c.copy_and_resolve_references().lock()
    section, name = key.split(".")
    assert c[section][name] != value
    c[section][name] = value
    losses = [loss_of(before), loss_of(c.lock())]
    assert np.isfinite(losses).all()
    assert abs(losses[0] - losses[1]) > 1e-4


def test_seeds_change_all_random_draws(start, tmp_path):
    """And the same seed reproduces them."""
    found = {}
    for which, seed in (("one", 0), ("again", 0), ("other", 1)):
        c = start.copy_and_resolve_references().unlock()
        c.seed = seed
        found[which] = first_step(c.lock(), tmp_path / which)
    loss, params, examples, key = found["one"]
    same, other = found["again"], found["other"]
    assert (loss, examples, key) == (same[0], *same[2:])
    drawn = [p for p in params if p.endswith(("kernel", "embedding"))]
    drawn.remove("head/bilinear/kernel")  # the identity
    assert len(drawn) > 5
    for path in params:
        np.testing.assert_array_equal(params[path], same[1][path])
        if path in drawn:
            assert np.abs(params[path] - other[1][path]).max() > 1e-3, path
    assert examples != other[2]
    assert key != other[3]


def test_phases_have_different_orders(start, tmp_path):
    c = start.unlock()
    c.train.phases = tuple(base.phase(name, epochs=1) for name in "ab")
    with open_run(c.lock(), tmp_path, time.perf_counter()) as (r, params):
        orders = [
            next(iter(make_phase(r, i, each, params, 0)[0].batches)).examples_B.tolist()
            for i, each in enumerate(trained_phases(c))
        ]
    assert orders[0] != orders[1]
