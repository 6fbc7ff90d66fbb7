"""Saves that are damaged, unfinished or of another run."""

import contextlib
import json
import random
import shutil

import jax.numpy as jnp
import pytest

from recjax.checkpointing.checkpoints import Checkpoints
from recjax.checkpointing.manifest import NAME
from recjax.common.errors import UserError
from recjax.training.train_step import LossMonitor, TrainState

ABOUT = {"required": {"train.lr": 1.0, "data": "a"}, "informational": {"jax": "1"}}
FILES_DAMAGED = 30


def state(value):
    value = float(value)
    params = {"a/kernel": jnp.full((300, 40), value), "b": jnp.full(7, value)}
    guard = LossMonitor(jnp.float32(0), jnp.int32(0), jnp.int32(0))
    return TrainState(jnp.int32(value), params, {}, {"m": params}, guard)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run directory with three saves in phase 1, of which two are kept."""
    folder = tmp_path_factory.mktemp("run")
    with contextlib.closing(Checkpoints(folder, print)) as c:
        c.bind(ABOUT)
        for index in (0, 1):
            c.save_params(index, state(index).trainable, {"step": index})
        for step in (10, 20, 30):
            meta = {"phase": 1, "step": step}
            c.save_last(step, state(step), state(step).trainable, {}, meta)
    return folder


def standing(folder):
    said = []
    with contextlib.closing(Checkpoints(folder, said.append)) as c:
        value = None
        if c.inside:
            restored, best, _ = c.restore_last(state(0), {})
            value = float(restored.trainable["b"][0])
            assert (
                value == float(best["b"][0]) == float(restored.opt_state["m"]["b"][0])
            )
        return c.standing, value, said


def test_the_newest_is_found_and_the_oldest_is_gone(saved):
    assert standing(saved) == ({"phase": 1, "step": 30}, 30.0, [])
    last = saved / "checkpoints" / "last"
    assert sorted(p.name for p in last.iterdir()) == ["20", "30"]


@pytest.mark.parametrize("seed", range(FILES_DAMAGED))
def test_damage_is_found_and_the_one_before_is_taken(saved, tmp_path, seed):
    """A bit flipped, a file cut or deleted: each of 30 is seen."""
    rng = random.Random(seed)
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    newest = folder / "checkpoints" / "last" / "30"
    files = sorted(p for p in newest.rglob("*") if p.is_file())
    path = rng.choice(files)
    raw = bytearray(path.read_bytes())
    kind = ("flip", "cut", "delete")[seed % 3]
    if kind == "delete" or not raw:
        path.unlink()
    elif kind == "cut":
        path.write_bytes(raw[: rng.randrange(len(raw))])
    else:
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
    meta, value, said = standing(folder)
    assert (meta["step"], value) == (20, 20.0)
    (line,) = said
    assert "last/30: passed over: " in line


def test_what_a_killed_save_left_is_deleted(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    for kind in ("last", "params"):
        (folder / "checkpoints" / kind / "40.orbax-checkpoint-tmp-1" / "x").mkdir(
            parents=True
        )
    assert standing(folder)[0]["step"] == 30
    assert not list(folder.rglob("*tmp*"))


def test_unfinished_saves_do_not_count(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    (folder / "checkpoints" / "last" / "30" / NAME).unlink()
    meta, _, said = standing(folder)
    assert meta["step"] == 20
    assert "it was never finished" in said[0]
    shutil.rmtree(folder / "checkpoints" / "params" / "1")
    meta, value, _ = standing(folder)  # what goes on from phase 1 is of no use
    assert (meta, value) == ({"step": 0}, None)


def test_another_run_is_refused_with_what_differs(saved):
    with contextlib.closing(Checkpoints(saved, print)) as c:
        assert c.bind(ABOUT) == []
        assert c.bind({**ABOUT, "informational": {"jax": "2"}}) == [
            "jax: 1 there, 2 here"
        ]
        other = {"required": {"train.lr": 2.0, "data": "a"}, "informational": {}}
        with pytest.raises(UserError, match=r"train\.lr: 1\.0 there, 2\.0 here"):
            c.bind(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(jnp.bfloat16), r"float32'\] there, .*bfloat16'\] here"),
        (lambda x: x[:5], r"\[\[7\], 'float32'\] there, \[\[5\], 'float32'\] here"),
    ],
)
def test_other_arrays_are_refused(saved, change, message):
    like = state(0)
    like = like.replace(trainable={**like.trainable, "b": change(like.trainable["b"])})
    with (
        contextlib.closing(Checkpoints(saved, print)) as c,
        pytest.raises(UserError, match=message),
    ):
        c.restore_last(like, {})


def test_a_failed_save_is_said_and_the_one_before_stands(saved, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    said = []
    with contextlib.closing(Checkpoints(folder, said.append)) as c:
        c.bind(ABOUT)

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("recjax.checkpointing.manifest.write", full)
        c.save_last(40, state(40), state(40).trainable, {}, {"phase": 1, "step": 40})
        assert not c.wait()
        c.save_params(2, state(2).trainable, {"step": 2})
        assert not c.wait()
    assert "last/40: NOT SAVED: [Errno 28] No space left" in said[0]
    monkeypatch.undo()
    assert standing(folder)[:2] == ({"phase": 1, "step": 30}, 30.0)


def test_what_enters_a_phase_is_saved_when_there_is_room_again(tmp_path, monkeypatch):
    """Without it no state of the phase is of use; until then each one is said."""
    said, whole = [], state(5)
    with contextlib.closing(Checkpoints(tmp_path, said.append)) as c:
        c.bind(ABOUT)

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("recjax.checkpointing.manifest.write", full)
        c.save_params(0, whole.trainable, {"step": 0})
        for step in (1, 2):
            meta = {"phase": 0, "step": step}
            c.save_last(step, whole, whole.trainable, {}, meta)
            assert len(said) == step + 1
            assert "params/0: NOT SAVED: [Errno 28]" in said[-1]
        monkeypatch.undo()
        c.save_last(3, whole, whole.trainable, {}, {"phase": 0, "step": 3})
        assert c.wait()
        assert len(said) == 3
    with contextlib.closing(Checkpoints(tmp_path, print)) as c:
        assert (c.entered.number, c.inside.number) == (0, 3)


def test_the_manifest_says_what_was_saved(saved):
    path = saved / "checkpoints" / "last" / "30" / NAME
    manifest = json.loads(path.read_text())
    assert manifest["about"] == ABOUT
    assert manifest["arrays"]["state:trainable:b"] == [[7], "float32"]
    assert all(len(digest) == 64 for digest in manifest["files"].values())


def test_frozen_parameters_are_written_once(tmp_path):
    whole = state(0).trainable
    with contextlib.closing(Checkpoints(tmp_path, print)) as c:
        c.save_params(0, whole, {})
        c.save_params(1, {"b": whole["b"] + 1}, {})
    with contextlib.closing(Checkpoints(tmp_path, print)) as c:
        assert c.entered.number == 1
        assert list(c.entered.manifest["arrays"]) == ["b"]
        params, trained = c.restore_params(whole)
    assert trained == ["b"]
    assert {path: float(x.max()) for path, x in params.items()} == {
        "a/kernel": 0,
        "b": 1,
    }
    next((tmp_path / "checkpoints" / "params" / "0").rglob("d/*")).unlink()
    with pytest.raises(UserError, match="no save is whole"):
        Checkpoints(tmp_path, print)
