"""A baseline's scores added to a trained model's."""

import numpy as np
import pytest

from configs import base
from recjax import train
from recjax.baselines import BASELINES
from recjax.checkpoint import read_params
from recjax.data.protocol import load_data
from recjax.data.queries import make_queries
from recjax.errors import UserError
from recjax.memory import FLOOR, Memory
from recjax.models.recommender import MEMORY


def with_memory(config, name="transitions", weights=(0.0, 0.5, 100.0), **changes):
    c = config.copy_and_resolve_references().unlock()
    c.item_tower.sources = ("id", "text")
    c.eval.baselines = ("transitions", "popularity")
    c.head.memory, c.head.memory_weights = name, weights
    c.train.phases = (base.phase("towers", epochs=2, lr=1e-2, **changes),)
    return c.lock()


def means(results):
    return {k: x["value"] for k, x in results.items() if "@" in k and "value" in x}


def test_a_heavy_memory_ranks_as_its_baseline(config, tmp_path):
    """The order of the logarithms is that of the scores."""
    final = train.run(with_memory(config, weights=(1e5,)), str(tmp_path))
    found, want = final["test"], final["baselines"]["transitions"]
    assert found["ndcg@10"]["value"] == want["ndcg@10"]["value"]
    assert final["phases"]["towers"]["memory"] == 1e5


def test_no_weight_is_no_memory(config, tmp_path):
    final = train.run(with_memory(config, weights=(0.0,)), str(tmp_path / "with"))
    plain = with_memory(config, name="")
    assert final["test"] == train.run(plain, str(tmp_path / "without"))["test"]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_validation_chooses(config, tmp_path, ema):
    best = {}
    for weights in ((0.0,), (0.5,), (100.0,), (0.0, 0.5, 100.0)):
        c = with_memory(config, weights=weights, ema=ema, patience=0)
        folder = tmp_path / "_".join(map(str, weights))
        final = train.run(c, str(folder))
        phase = final["phases"]["towers"]
        best[weights] = final["valid"]["ndcg@10"]["value"]
        kept = float(read_params(folder)[MEMORY])
        assert kept == pytest.approx(phase["memory"], rel=1e-6)
    chosen = (0.0, 0.5, 100.0)
    assert best[chosen] == max(best.values()) == best[(phase["memory"],)]
    assert f"memory x {phase['memory']:g})" in (folder / "results.md").read_text()


def test_a_weight_that_every_phase_freezes_is_refused(config, tmp_path):
    rules = (("head/.*|users/.*|items/id/.*", 1.0), (".*", None))
    c = with_memory(config, lr_mults=rules)
    with pytest.raises(UserError, match="every phase freezes its weight, memory/w"):
        train.run(c, str(tmp_path))


def test_logarithms_have_a_floor(config):
    c = with_memory(config)
    data = load_data(c)
    q = next(make_queries(data.test, batch_size=8, history_length=6, mask_seen=True))
    plain = BASELINES["transitions"](c.seed)
    plain.fit(data.train, data.num_items)
    scores, log = plain.score(q), Memory(c, data).score(q)
    assert (scores == 0).any()  # an item without an event
    np.testing.assert_allclose(log, np.log(np.maximum(scores, FLOOR)))
    raw = c.copy_and_resolve_references().unlock()
    raw.head.memory_log = False
    np.testing.assert_array_equal(Memory(raw, data).score(q), scores)
