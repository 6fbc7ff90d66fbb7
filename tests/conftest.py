"""Strict JAX for every test, on eight CPU devices."""

import json
import os
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

import recjax
from recjax.baselines import BASELINES
from recjax.config import base
from recjax.inference.model import Model
from recjax.models.users.time_bias import NUM_BUCKETS
from tests import synthetic

# Tests spend most of their time compiling, so compile quickly rather than well.
COMPILE_QUICKLY = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
    )
)
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), EIGHT_DEVICES, COMPILE_QUICKLY)
)
os.environ["JAX_PLATFORMS"] = "cpu"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_threefry_partitionable", False)

TINY_BERT = Path(__file__).parent / "fixtures" / "tiny_bert"
TOP = base.ENCODER + "layer_2/"  # parameters of the last layer of the tiny encoder
INSTALLED_BASELINES = tuple(  # without those whose library is missing
    name for name in BASELINES if name != "bpr_mf" or find_spec("implicit")
)


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """Shares compiled functions between tests, and with the runs that they start."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared by all workers
    settings = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    for key, value in settings.items():
        jax.config.update(key, value)
        os.environ[key.upper()] = str(value)


@pytest.fixture(scope="session")
def atomic_dir(tmp_path_factory):
    """A small data set in RecBole's atomic files."""
    return synthetic.write_atomic(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def six_layers(tmp_path_factory):
    """The tiny encoder with its three layers twice, so that it has six, as MiniLM."""
    folder = tmp_path_factory.mktemp("six") / "bert"
    shutil.copytree(TINY_BERT, folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "num_hidden_layers": 6}))
    weights = load_file(folder / "model.safetensors")
    for name in list(weights):
        if "layer." in name:
            head, number, tail = re.split(r"(?<=layer\.)(\d)", name)
            weights[f"{head}{int(number) + 3}{tail}"] = weights[name]
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def finished(atomic_dir, tmp_path_factory):
    """The directory of a run of ids and whitened texts, fused with two baselines."""
    c = shrink(base.get_config(), atomic_dir).unlock()
    c.item_tower.sources, c.text.whiten = ("id", "text"), True
    c.head.fusion = ("transitions", "text")
    c.report.save_model = True
    c.train.phases = (base.phase("towers", epochs=2, lr=1e-2),)
    workdir = tmp_path_factory.mktemp("finished") / "run"
    recjax.train(c.lock(), str(workdir))
    return workdir


@pytest.fixture(scope="session")
def model(finished):
    return recjax.load(finished)


@pytest.fixture(scope="session")
def timed(atomic_dir, tmp_path_factory):
    """A run of ids whose user tower reads times, with biases as if trained long."""
    folder = tmp_path_factory.mktemp("timed")
    config = shrink(base.get_config(), atomic_dir)
    parts = train_ids_model(config, folder / "run", **{"user_tower.time": True}).parts
    biases = np.random.default_rng(0).normal(size=(2, NUM_BUCKETS)).astype(np.float32)
    params = {**parts.params, "users/time_bias/bias": 2 * biases}
    Model(replace(parts, params=params)).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def config(atomic_dir) -> ConfigDict:
    """The base config, shrunk to seconds, over synthetic data and a tiny encoder."""
    return shrink(base.get_config(), atomic_dir)


def train_ids_model(config: ConfigDict, folder: Path, **keys):
    """Trains a model of ids alone for an epoch, with other keys changed; loads it."""
    config = config.copy_and_resolve_references().unlock()
    config.item_tower.sources, config.eval.baselines = ("id",), ()
    config.report.save_model = True
    config.train.phases = (base.phase("p", epochs=1, lr=1e-2),)
    config.update_from_flattened_dict(keys)
    recjax.train(config.lock(), str(folder))
    return recjax.load(folder)


def shrink(config: ConfigDict, folder: Path, encoder: Path = TINY_BERT) -> ConfigDict:
    """Shrinks any config: synthetic data, a tiny encoder, at most one epoch per phase.

    Args:
      config: the config, which is not changed.
      folder: directory of the synthetic data.
      encoder: directory of the encoder.
    """
    config = config.copy_and_resolve_references().unlock()
    fixed = config.data.split == "fixed"
    config.data.source = str(folder)
    config.data.file_prefix, config.data.format = "", "atomic"
    config.data.time = config.data.time and "timestamp"
    config.data.rating = config.data.rating and "rating"
    config.data.history_length = 6
    if fixed:
        config.data.rating = ""
    config.text.encoder = str(encoder)
    config.text.template, config.text.title = "{title} {genre}", "{title}"
    config.text.max_tokens, config.text.row_tokens = 12, 16
    config.text.rows_per_batch = 8
    config.text.cache_disk_gib = 0.0  # no files outside the test's own folders
    config.item_tower.width, config.user_tower.num_layers = 8, 1
    config.train.batch_size, config.eval.batch_size = 16, 16
    config.eval.bootstrap_samples = 20
    config.report.save_model = False  # most tests do not use what they train
    for phase in config.train.phases:
        phase.epochs, phase.batch_size = min(phase.epochs, 1), 0
        phase.epoch_steps = min(phase.epoch_steps, 2)
    return config.lock()


def records(workdir: Path) -> list[dict]:
    """Reads `metrics.jsonl` of a run."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_times(workdir: Path) -> list[dict]:
    """Returns `records` without the times, which differ between any two runs."""
    return [
        {tag: value for tag, value in record.items() if tag != "time/step_ms"}
        for record in records(workdir)
    ]
