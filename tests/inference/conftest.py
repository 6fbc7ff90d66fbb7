"""One finished run, and its model."""

import pytest

import recjax
from recjax.config import base
from recjax.run import train
from tests.conftest import shrink


@pytest.fixture(scope="package")
def finished(atomic_dir, tmp_path_factory):
    """The directory of a run of ids and whitened texts, fused with two baselines."""
    c = shrink(base.get_config(), atomic_dir).unlock()
    c.item_tower.sources, c.text.whiten = ("id", "text"), True
    c.head.fusion = ("transitions", "text")
    c.train.phases = (base.phase("towers", epochs=2, lr=1e-2),)
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train.run(c.lock(), str(workdir))
    return workdir


@pytest.fixture(scope="package")
def model(finished):
    return recjax.load(finished)
