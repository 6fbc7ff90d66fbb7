"""Strict JAX for every test, on eight CPU devices."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest
from ml_collections import ConfigDict

from configs import base
from recjax.data import synthetic

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_threefry_partitionable", False)


@pytest.fixture(scope="session")
def atomic_dir(tmp_path_factory):
    """A small data set in RecBole's atomic files."""
    return synthetic.write_atomic(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def config(atomic_dir) -> ConfigDict:
    """The base config, shrunk to seconds, over synthetic data and a tiny encoder."""
    return shrink(base.get_config(), atomic_dir)


def shrink(c: ConfigDict, folder) -> ConfigDict:
    """Any config, on synthetic data, a random encoder and two steps a phase."""
    c = c.copy_and_resolve_references().unlock()
    fixed = c.data.split == "fixed"
    c.data.source = str(folder)
    c.data.stem, c.data.format = "", "atomic"
    c.data.time = c.data.time and "timestamp"
    c.data.rating = c.data.rating and "rating"
    c.data.history_length = 6
    if fixed:
        c.data.rating = ""
    c.text.encoder = "tests/fixtures/tiny_bert"
    c.text.template, c.text.title = "{title} {genre}", "{title}"
    c.text.max_tokens, c.text.row_tokens, c.text.rows_per_batch = 12, 16, 8
    c.item_tower.width, c.user_tower.num_layers = 8, 1
    c.train.batch_size, c.eval.batch_size, c.eval.resamples = 16, 16, 20
    for phase in c.train.phases.values():
        phase.epochs = min(phase.epochs, 1)
    return c.lock()
