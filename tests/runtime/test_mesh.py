"""A (4, 2) mesh of eight devices computes the same as one device."""

import time

import jax
import numpy as np
import pytest

from recjax.checkpointing.checkpoints import read_params
from recjax.common import param_paths
from recjax.common.errors import UserError
from recjax.config import base
from recjax.run.setup import open_run, trained_phases
from recjax.run.train import run
from recjax.runtime import mesh as mesh_lib
from recjax.training.make_phase import make_phase
from tests.conftest import TOP, records


@pytest.mark.parametrize(
    ("negatives", "chunk"),
    [("all", 5), ("in_batch", 5), ("stale", 1024)],
)
def test_mesh_equals_one_device(config, tmp_path, negatives, chunk):
    """20 steps that train ids, the encoder's top layer, users and head, with dropout.

    Losses within 1e-5 relative, parameters within 5e-5 absolute, at a learning rate
    of 2e-3. Adam's epsilon is large enough that gradients which are rounding alone
    (those of the keys' biases, which softmax does not see) are not scaled up.
    """
    c = config.unlock()
    c.loss.negatives, c.loss.chunk = negatives, chunk
    c.item_tower.sources = ("id", "text")
    c.report.every_steps, c.optim.eps = 1, 1e-5
    c.train.batch_size = 8  # 40 users: 5 steps an epoch
    top = base.freeze(1, layers=3)
    c.train.phases = (base.phase("top", epochs=4, lr=2e-3, patience=0, lr_mults=top),)
    losses, params = [], []
    for shape in ((1, 1), (4, 2)):
        c.mesh.data, c.mesh.model = shape
        assert mesh_lib.make_mesh(c.mesh).devices.shape == shape
        folder = tmp_path / f"{shape[0]}x{shape[1]}"
        run(c, str(folder))
        losses.append([r["train/loss"] for r in records(folder) if "train/loss" in r])
        params.append(read_params(folder, 1))
    assert len(losses[0]) == 20
    assert param_paths.max_change(read_params(folder, 0), params[0])[
        TOP + "mlp_up/kernel"
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for path, x in params[0].items():
        np.testing.assert_allclose(x, params[1][path], atol=5e-5, err_msg=path)


def test_a_device_has_its_share_of_a_run(config, tmp_path):
    """Each device holds a quarter of the batch and half of every sharded parameter."""
    c = config.unlock()
    c.item_tower.sources, c.train.batch_size = ("id", "text"), 8
    c.mesh.data, c.mesh.model = 4, 2
    with open_run(c.lock(), tmp_path, time.perf_counter()) as (r, params):
        phase, state = make_phase(r, 0, trained_phases(c)[0], params, 0)
        catalogue, placed = phase.place(next(iter(phase.batches)))
        step = phase.step(
            state,
            phase.frozen,
            catalogue,
            placed,
            phase.dropout_key,
        )

    def share(x):
        return [
            whole // part
            for whole, part in zip(
                x.shape, x.sharding.shard_shape(x.shape), strict=True
            )
        ]

    assert share(placed.history_BxH) == [4, 1]
    assert share(placed.targets_P) == [4]
    path = "head/bilinear/kernel"
    moments = [x for x in jax.tree.leaves(step[0].opt_state) if x.ndim == 2]
    assert share(params[path]) == share(step[0].trainable[path]) == [1, 2]
    assert [1, 2] in map(share, moments)
    assert share(params[TOP + "mlp_up/kernel"]) == [1, 2]
    assert share(params["head/bias"]) == [1]


def test_weights_are_sharded_over_the_model_axis(config):
    c = config.unlock()
    c.mesh.data, c.mesh.model = 4, 2
    mesh = mesh_lib.make_mesh(c.mesh)
    flat = {
        "a/kernel": np.zeros((3, 4)),
        "b/kernel": np.zeros((4, 3)),
        "bias": np.zeros(4),
    }
    rules = (*c.mesh.rules[:-1], ("bias", None), c.mesh.rules[-1])
    placed = mesh_lib.param_shardings(flat, mesh, rules)
    assert placed["a/kernel"].shard_shape((3, 4)) == (3, 2)
    assert placed["b/kernel"].shard_shape((4, 3)) == (4, 3)  # 2 does not divide 3
    assert placed["bias"].shard_shape((4,)) == (4,)
    for axes, message in (
        (("modle",), "'modle' is not one of data, model"),
        (("model", "model"), "'model' appears twice in"),
        (3, "3 is not a tuple of mesh axes"),
        ("model", "'model' is not a tuple of mesh axes"),
    ):
        with pytest.raises(UserError, match=f"mesh.rules: {message}"):
            mesh_lib.param_shardings(flat, mesh, ((".*", axes),))
