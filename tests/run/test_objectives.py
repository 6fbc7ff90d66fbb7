"""Runs with auxiliary losses."""

import numpy as np
import pytest

from recjax.checkpointing.checkpoints import read_params
from recjax.config import base
from recjax.models.objectives import OBJECTIVES
from recjax.run import train
from tests.conftest import records

LOG_VARIANCES = "objectives/log_variances"


def trained(config, folder, **keys):
    c = config.copy_and_resolve_references().unlock()
    c.data.rating, c.eval.like_threshold = "rating", 3.0
    c.item_tower.sources, c.loss.num_categories = ("id", "text"), 4
    c.eval.baselines, c.report.every_steps = (), 1
    c.train.phases = (base.phase("p", epochs=2, lr=1e-2, keep="last"),)
    c.update_from_flattened_dict(keys)
    return train.run(c.lock(), str(folder)), read_params(folder)


@pytest.mark.parametrize("negatives", ["all", "stale", "mixed"])
def test_all_losses_are_trained_logged_and_weighted(config, tmp_path, negatives):
    names = tuple(OBJECTIVES)
    keys = {"loss.auxiliary": names, "loss.negatives": negatives}
    final, params = trained(config, tmp_path, **keys)
    scalars = [x for x in records(tmp_path) if "train/loss" in x]
    first = {name: scalars[0][f"train/loss/{name}"] for name in ("main", *names)}
    assert all(x > 0 for x in first.values())
    # All weights are 1 at first.
    assert scalars[0]["train/loss"] == pytest.approx(sum(first.values()), rel=1e-5)
    assert params[LOG_VARIANCES].shape == (5,)
    assert np.abs(params[LOG_VARIANCES]).min() > 1e-3
    assert final["phases"]["p"]["rating"] is not None
    assert 0 <= final["test"]["like_auc"]["value"] <= 1


def test_rules_freeze_the_parameters_of_losses(config, tmp_path):
    rules = (("objectives/.*", None), *base.freeze("all"))
    phase = base.phase("p", epochs=1, lr=1e-2, keep="last", lr_mults=rules)
    keys = {"loss.auxiliary": ("category",), "train.phases": (phase,)}
    _, params = trained(config, tmp_path, **keys)
    assert not np.any(params[LOG_VARIANCES])


def test_a_loss_of_weight_zero_changes_nothing(config, tmp_path):
    sgd = {"optim.name": "sgd"}  # AdamW makes rounding errors of zero gradients large
    _, plain = trained(config, tmp_path / "plain", **sgd)
    keys = {"loss.auxiliary": ("category",), "loss.auxiliary_weights": (0.0,)}
    _, zero = trained(config, tmp_path / "zero", **sgd, **keys)
    assert set(zero) - set(plain) == {
        "objectives/category/kernel",
        "objectives/category/bias",
    }
    for path, x in plain.items():
        np.testing.assert_allclose(zero[path], x, atol=1e-5, err_msg=path)


def test_a_category_is_learned_from_a_column(config, tmp_path):
    """The next item has the genre of the history, in the synthetic data."""
    phase = base.phase("p", epochs=30, lr=1e-2, keep="last", patience=0)
    keys = {
        "loss.auxiliary": ("category",),
        "loss.auxiliary_weights": (1.0,),
        "loss.category": "genre",
        "train.phases": (phase,),
    }
    trained(config, tmp_path, **keys)
    scalars = [x for x in records(tmp_path) if "train/loss/category" in x]
    first, last = (scalars[i]["train/loss/category"] for i in (0, -1))
    assert first > 1.0  # log(4) by chance
    assert last < 0.3
