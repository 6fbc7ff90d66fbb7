"""Dry runs, and mistakes that are found before a run starts."""

import contextlib
import os
import shutil

import pytest

from recjax.common.errors import UserError
from recjax.config import base
from recjax.run import train
from recjax.run.dry_run import dry_run
from recjax.run.estimate import Estimate
from recjax.run.workdir import lock_workdir
from recjax.runtime.processes import initialize_distributed


@pytest.fixture(autouse=True)
def no_estimate(monkeypatch):
    """Estimates have tests of their own."""
    monkeypatch.setattr("recjax.run.dry_run.estimate_run", lambda *args: Estimate())


@pytest.mark.parametrize("negatives", ["all", "in_batch", "stale"])
def test_a_dry_run_describes_each_phase(config, tmp_path, capsys, negatives):
    c = config.unlock()
    c.loss.negatives = negatives
    c.train.phases = (
        base.phase("frozen", epochs=3),
        base.phase("top", epochs=2, lr_mults=base.freeze(1, layers=3)),
        base.phase("all", epochs=1, lr_mults=base.freeze("none")),
    )
    dry_run(c.lock(), str(tmp_path / "run"))
    out = capsys.readouterr().out
    for name, epochs in (("frozen", 3), ("top", 2), ("all", 1)):
        assert f"phase {name}: at most {epochs} epochs of 3 steps; a step takes" in out
    assert "checkpoints: at most" in out
    assert out.endswith(
        "dry run: no problems; nothing was written to the run directory\n"
    )
    assert "encoding items" not in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_names_no_file_that_it_does_not_write(config, tmp_path, capsys):
    dry_run(config, str(tmp_path / "run"))
    assert "\nconfig, changed from the defaults:\n" in capsys.readouterr().out


def test_a_dry_run_finds_too_large_a_prefix(config, tmp_path):
    c = config.unlock()
    c.text.cache_ram_gib, c.loss.negatives = 1e-9, "all"
    c.train.phases = (base.phase("top", lr_mults=base.freeze(1, layers=3)),)
    with pytest.raises(UserError, match="'all' needs the whole frozen prefix"):
        dry_run(c, str(tmp_path / "run"))
    c.loss.negatives = "in_batch"
    dry_run(c, str(tmp_path / "run"))


def test_a_dry_run_finds_mistakes(config, tmp_path):
    c = config.copy_and_resolve_references().unlock()
    c.text.template = "{nothing}"
    with pytest.raises(UserError, match="template"):
        dry_run(c, str(tmp_path / "run"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run: Not a directory"):
        dry_run(config, str(tmp_path / "file" / "run"))
    train.run(config, str(tmp_path / "run"))
    c = config.copy_and_resolve_references().unlock()
    c.item_tower.width = 16
    with pytest.raises(UserError, match=r"item_tower\.width: 8 before, 16 now"):
        dry_run(c, str(tmp_path / "run"))


def test_a_full_disk_is_found_before_anything_is_compiled(
    config, tmp_path, monkeypatch, capsys
):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    for start in (dry_run, train.run):
        with pytest.raises(UserError, match=r"the checkpoints need \d+ MiB, 0 MiB are"):
            start(config, str(tmp_path / "run"))
    assert not list(tmp_path.rglob("last/*"))
    assert "compiling" not in capsys.readouterr().out


def test_a_step_that_needs_too_much_memory_is_found(config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    with pytest.raises(UserError, match=r"a step needs .* this process may use"):
        dry_run(config, str(tmp_path / "run"))


def test_two_runs_in_one_directory(config, tmp_path):
    with lock_workdir(tmp_path):
        (tmp_path / "config.json").write_text("the other's")
        with pytest.raises(UserError, match="is using it"):
            train.run(config, str(tmp_path))
    assert (tmp_path / "config.json").read_text() == "the other's"
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_workdir(tmp_path))
    assert train.run(config, str(tmp_path))["test"]


def test_flags_of_processes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="--processes needs --coordinator"):
        initialize_distributed(None, 2, 0)
    with pytest.raises(UserError, match="--process=2 is not from 0 to 1"):
        initialize_distributed("127.0.0.1:1", 2, 2)
