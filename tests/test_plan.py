"""A run that is only planned, and what refuses to begin."""

import contextlib
import os
import shutil

import pytest

from configs import base
from recjax import train
from recjax.errors import UserError
from recjax.plan import plan
from recjax.processes import join
from recjax.workdir import claim


@pytest.mark.parametrize("negatives", ["all", "in_batch", "stale"])
def test_a_plan_says_what_each_phase_takes(config, tmp_path, capsys, negatives):
    c = config.unlock()
    c.loss.negatives = negatives
    c.train.phases = (
        base.phase("frozen", epochs=3),
        base.phase("top", epochs=2, lr_mults=base.freeze(1, layers=3)),
        base.phase("all", epochs=1, lr_mults=base.freeze("none")),
    )
    plan(c.lock(), str(tmp_path / "run"))
    out = capsys.readouterr().out
    for name, epochs in (("frozen", 3), ("top", 2), ("all", 1)):
        assert f"phase {name}: at most {epochs} epochs of 3 steps; a step takes" in out
    assert "checkpoints: at most" in out
    assert out.endswith("dry run: all fits; nothing was trained or written\n")
    assert "encoding items" not in out
    assert not (tmp_path / "run").exists()


def test_a_plan_names_no_file_that_it_does_not_write(config, tmp_path, capsys):
    plan(config, str(tmp_path / "run"))
    assert "\nconfig, resolved:\n" in capsys.readouterr().out


def test_a_plan_finds_too_large_a_prefix(config, tmp_path):
    c = config.unlock()
    c.text.prefix_memory, c.loss.negatives = 1e-9, "all"
    c.train.phases = (base.phase("top", lr_mults=base.freeze(1, layers=3)),)
    with pytest.raises(UserError, match="'all' needs the whole frozen prefix"):
        plan(c, str(tmp_path / "run"))
    c.loss.negatives = "in_batch"
    plan(c, str(tmp_path / "run"))


def test_a_plan_finds_what_is_wrong(config, tmp_path):
    c = config.copy_and_resolve_references().unlock()
    c.text.template = "{nothing}"
    with pytest.raises(UserError, match="template"):
        plan(c, str(tmp_path / "run"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="may not be written"):
        plan(config, str(tmp_path / "file" / "run"))
    train.run(config, str(tmp_path / "run"))
    c = config.copy_and_resolve_references().unlock()
    c.item_tower.width = 16
    with pytest.raises(UserError, match=r"item_tower\.width: 8 there, 16 here"):
        plan(c, str(tmp_path / "run"))


def test_a_disk_without_room_is_found_before_anything_is_compiled(
    config, tmp_path, monkeypatch, capsys
):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    for start in (plan, train.run):
        with pytest.raises(UserError, match=r"the checkpoints need \d+ MiB, 0 MiB are"):
            start(config, str(tmp_path / "run"))
    assert not list(tmp_path.rglob("last/*"))
    assert "compiling" not in capsys.readouterr().out


def test_a_step_without_room_is_found(config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    with pytest.raises(UserError, match=r"a step needs .* the machine has"):
        plan(config, str(tmp_path / "run"))


def test_two_runs_in_one_directory(config, tmp_path):
    (tmp_path / "config.json").write_text("the other's")
    with claim(tmp_path), pytest.raises(UserError, match="another run is in it"):
        train.run(config, str(tmp_path))
    assert (tmp_path / "config.json").read_text() == "the other's"
    with contextlib.ExitStack() as stack:
        stack.enter_context(claim(tmp_path))
    assert train.run(config, str(tmp_path))["test"]


def test_processes_that_are_not_said_how(tmp_path):
    with pytest.raises(UserError, match="--processes needs --coordinator"):
        join(None, 2, 0)
    with pytest.raises(UserError, match="--process=2 is not one of 2"):
        join("127.0.0.1:1", 2, 2)
