"""Eight devices as a (4, 2) mesh compute what one device computes."""

import numpy as np
import pytest

from configs import base
from recjax import train, trees
from recjax.checkpoint import read_params
from tests.test_train import TOP, records


@pytest.mark.parametrize(
    ("negatives", "chunk"),
    [("all", 1024), ("all", 5), ("in_batch", 5), ("stale", 1024)],
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
        folder = tmp_path / f"{shape[0]}x{shape[1]}"
        train.run(c, str(folder))
        losses.append([r["train/loss"] for r in records(folder) if "train/loss" in r])
        params.append(read_params(folder, 1))
    assert len(losses[0]) == 20
    assert trees.max_change(read_params(folder, 0), params[0])[TOP + "mlp_up/kernel"]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for path, x in params[0].items():
        np.testing.assert_allclose(x, params[1][path], atol=5e-5, err_msg=path)


def test_weights_are_spread_over_the_model_axis(config):
    from recjax import sharding

    c = config.unlock()
    c.mesh.data, c.mesh.model = 4, 2
    mesh = sharding.make_mesh(c.mesh)
    flat = {
        "a/kernel": np.zeros((3, 4)),
        "b/kernel": np.zeros((4, 3)),
        "bias": np.zeros(4),
    }
    rules = (*c.mesh.rules[:-1], ("bias", None), c.mesh.rules[-1])
    placed = sharding.param_shardings(flat, mesh, rules)
    assert placed["a/kernel"].shard_shape((3, 4)) == (3, 2)
    assert placed["b/kernel"].shard_shape((4, 3)) == (4, 3)  # 2 does not divide 3
    assert placed["bias"].shard_shape((4,)) == (4,)
