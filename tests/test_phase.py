"""The course of a phase."""

import jax
import numpy as np

from configs import base
from recjax.phase import Standing, make_meter, set_up, train_epoch
from recjax.train import open_run


def test_stale_vectors_are_refreshed(config, tmp_path, monkeypatch):
    """In the first step and every second one after it, by the newest parameters."""
    c = config.unlock()
    c.loss.negatives, c.loss.refresh_steps = "stale", 2
    c.item_tower.sources, c.train.batch_size = ("id",), 8  # 40 users: 5 steps
    c.train.phases = (base.phase("p", epochs=1, lr=1e-2),)
    with open_run(c, tmp_path, 0.0) as (r, params):
        phase, state = set_up(r, 0, c.train.phases[0], params, 0)
        encode, step = phase.scorer.encode_catalogue, phase.step
        fresh, used, entered = [], [], []

        def counted(nested):
            encoded = encode(nested)
            fresh.append(np.asarray(encoded[0]))
            return encoded

        def spied(state, frozen, catalogue, *rest):
            entered.append(np.asarray(state.trainable["items/id/vectors/embedding"]))
            used.append(np.asarray(catalogue["stale"]["vectors_NxD"]))
            return step(state, frozen, catalogue, *rest)

        monkeypatch.setattr(phase.scorer, "encode_catalogue", counted)
        object.__setattr__(phase, "step", spied)
        key, meter = jax.random.key(0), make_meter(r, phase, Standing(0, 0.0, 0))
        meter.start_epoch(0.0)
        train_epoch(r, phase, state, iter(phase.batches), r.put_whole(key), meter)
        meter.close()
    assert len(fresh) == 3
    for i, table in enumerate(used):
        np.testing.assert_array_equal(table, fresh[i // 2])
        np.testing.assert_allclose(table, entered[i // 2 * 2], rtol=1e-6)
    assert np.abs(used[0] - used[2]).max() > 1e-3
