"""Estimates of the cost of a run, which a dry run prints."""

import jax
import numpy as np
import pytest

from recjax.baselines import BASELINES
from recjax.config import base
from recjax.data.splits import load_data
from recjax.run import estimate
from recjax.run.dry_run import dry_run
from recjax.run.estimate import Estimate, describe, placeholder, sample
from recjax.runtime.host_memory import peak_memory


@pytest.fixture
def estimates(monkeypatch):
    """Every estimate that is described, instead of its text."""
    found = []
    monkeypatch.setattr("recjax.run.dry_run.describe", lambda x: found.append(x) or "")
    return found


def test_every_part_of_a_run_is_measured(config, tmp_path, estimates):
    c = config.unlock()
    c.eval.baselines, c.head.fusion = ("popularity", "text"), ("transitions",)
    c.train.phases = (
        base.phase("frozen", epochs=3),
        base.phase("top", epochs=1, lr_mults=base.freeze(1, layers=3)),
    )
    before = peak_memory()
    dry_run(c.lock(), str(tmp_path / "run"))
    (found,) = estimates
    assert found.peak_mib >= before
    parts = {"load", "prefix", "baselines", "zero_shot", "train", "test", "compile"}
    assert set(found.seconds) == parts
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert set(found.epochs) == {"frozen", "top"}


def test_epochs_count_as_often_as_they_are_trained(
    config, tmp_path, estimates, monkeypatch
):
    """One second for every measured step, and for every other measurement."""
    clock = iter(range(10**6))
    monkeypatch.setattr(estimate, "measure", lambda run, function: 1.0)
    monkeypatch.setattr(estimate, "now", lambda run: float(next(clock)))
    for epochs in (1, 5):
        c = config.copy_and_resolve_references().unlock()
        c.item_tower.sources = ("id",)
        c.train.phases = (base.phase("p", epochs=epochs),)
        dry_run(c.lock(), str(tmp_path / "run"))
    first, second = estimates
    # 3 steps and a validation; another validation comes before the first epoch.
    assert first.epochs == second.epochs == {"p": 4.0}
    assert (first.seconds["train"], second.seconds["train"]) == (5.0, 21.0)


@pytest.mark.parametrize("negatives", ["in_batch", "stale"])
def test_mapped_prefixes_and_stale_tables_are_measured(
    config, tmp_path, estimates, negatives
):
    c = config.unlock()
    c.loss.negatives, c.loss.refresh_steps = negatives, 2
    if negatives == "in_batch":
        c.text.cache_ram_gib = 1e-9
    rules = base.freeze(1, layers=3)
    c.train.phases = (base.phase("top", epochs=1, lr_mults=rules),)
    dry_run(c.lock(), str(tmp_path / "run"))
    assert estimates[0].epochs["top"] > 0


def test_trained_blocks_are_encoded_again(config, tmp_path, estimates, monkeypatch):
    """Their initial output is cached, that after training is not."""
    c = config.unlock()
    c.train.phases = (
        base.phase("all", epochs=1, lr_mults=base.freeze("none")),
        base.phase("frozen", epochs=1),
    )
    monkeypatch.setattr(
        "recjax.catalogue.frozen_prefix.PrefixEncoder.is_cached", lambda *args: True
    )
    dry_run(c.lock(), str(tmp_path / "run"))
    assert estimates[0].seconds["prefix"] > 0


def test_a_dry_run_changes_no_file_and_no_parameter(config, tmp_path, monkeypatch):
    seen = []
    real = estimate.estimate_run

    def spy(run, phases, params):
        before = {path: np.array(x, copy=True) for path, x in params.items()}
        found = real(run, phases, params)
        seen.append((before, jax.device_get(params)))
        return found

    monkeypatch.setattr("recjax.run.dry_run.estimate_run", spy)
    dry_run(config, str(tmp_path / "run"))
    ((before, after),) = seen
    assert all(np.array_equal(before[path], after[path]) for path in before)
    assert not (tmp_path / "run").exists()


def test_cached_prefixes_take_no_time(config, tmp_path, estimates, monkeypatch):
    monkeypatch.setattr(
        "recjax.catalogue.frozen_prefix.PrefixEncoder.is_cached", lambda *args: True
    )
    dry_run(config, str(tmp_path / "run"))
    assert "prefix" not in estimates[0].seconds


def test_baselines_are_fitted_once(config, tmp_path, estimates, monkeypatch):
    fits = []
    fit = BASELINES["popularity"].fit

    def count(self, *args):
        fits.append(1)
        fit(self, *args)

    monkeypatch.setattr(BASELINES["popularity"], "fit", count)
    c = config.unlock()
    c.eval.baselines = c.head.fusion = ("popularity",)
    dry_run(c.lock(), str(tmp_path / "run"))
    assert len(fits) == 1
    assert estimates


def test_samples_are_evenly_spaced(config):
    examples = load_data(config).test
    assert len(sample(examples, 10**6)) == len(examples)
    few = sample(examples, 3)
    assert few.users_R.tolist() == examples.users_R[[0, 19, 39]].tolist()


def test_a_placeholder_has_the_shape_and_no_equal_columns():
    shape = jax.ShapeDtypeStruct((estimate.RANDOM_ROWS + 5, 3), np.float32)
    array = placeholder(shape, 10**6)
    assert array.shape == (estimate.RANDOM_ROWS + 5, 3)
    assert array.dtype == np.float32
    assert np.array_equal(array[:5], array[-5:])
    assert np.linalg.matrix_rank(np.cov(array.T)) == 3
    mapped = placeholder(shape, 100)
    assert mapped.shape == array.shape
    assert mapped.strides[0] == 0  # a row is in memory


def test_the_description_has_units():
    found = Estimate({"load": 4.2, "train": 7000.0, "test": 0.3}, {"p": 130.0}, 1400)
    assert describe(found) == (
        "estimate: 1.9 h if no phase stops early (load 4 s, train 1.9 h); an "
        "epoch of p takes 2 min; peak host memory 1,400 MiB"
    )
