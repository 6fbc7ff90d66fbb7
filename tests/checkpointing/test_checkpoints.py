"""Checkpoints that are damaged, unfinished or of another run."""

import contextlib
import json
import random
import shutil

import jax.numpy as jnp
import pytest

from recjax.checkpointing import manifest as manifest_lib
from recjax.checkpointing.checkpoints import Checkpoints, read_params
from recjax.checkpointing.manifest import NAME
from recjax.common.errors import UserError

pytestmark = pytest.mark.unit

IDENTITY = {"required": {"train.lr": 1.0, "data": "a"}, "informational": {"jax": "1"}}
FILES_DAMAGED = 30


def make_params(value):
    value = float(value)
    return {"a/kernel": jnp.full((300, 40), value), "b": jnp.full(7, value)}


def make_tree(value):
    params = make_params(value)
    return {
        "step": jnp.int32(value),
        "trainable": params,
        "opt_state": ({"m": params},),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run directory with three checkpoints of phase 1, of which two are kept."""
    folder = tmp_path_factory.mktemp("run")
    with contextlib.closing(Checkpoints(folder, print)) as checkpoints:
        checkpoints.check_identity(IDENTITY)
        for index in (0, 1):
            checkpoints.save_params(index, make_params(index), {"step": index})
        for step in (10, 20, 30):
            meta = {"phase": 1, "step": step}
            checkpoints.save_last(step, make_tree(step), meta)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def resume(folder):
    """Metadata and array value that a run resumes from, and its log lines."""
    lines = []
    with contextlib.closing(Checkpoints(folder, lines.append)) as checkpoints:
        value = None
        if checkpoints.step_checkpoint:
            restored = checkpoints.restore_last(make_tree(0))
            value = float(restored["trainable"]["b"][0])
            assert value == float(restored["opt_state"][0]["m"]["b"][0])
        newest = checkpoints.newest
        return newest.meta if newest else None, value, lines


def edit_manifest(path, edit):
    """Changes a manifest in a way that still verifies."""
    manifest = json.loads((path / NAME).read_text())
    del manifest["sha256"]
    edit(manifest)
    manifest_lib.write(path, manifest)


def test_the_newest_is_found_and_the_oldest_is_gone(saved):
    assert resume(saved) == ({"phase": 1, "step": 30}, 30.0, [])
    last = saved / "checkpoints" / "last"
    assert sorted(p.name for p in last.iterdir()) == ["20", "30"]


@pytest.mark.parametrize("seed", range(FILES_DAMAGED))
def test_damage_is_found_and_the_checkpoint_before_is_taken(copied, seed):
    """A flipped bit, a truncated file or a missing file is found, wherever it is."""
    rng = random.Random(seed)
    newest = copied / "checkpoints" / "last" / "30"
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
    meta, value, lines = resume(copied)
    assert (meta["step"], value) == (20, 20.0)
    (line,) = lines
    assert "last/30: skipped: " in line


def test_an_unexpected_file_is_found(copied):
    (copied / "checkpoints" / "last" / "30" / "more").touch()
    meta, _, lines = resume(copied)
    assert meta["step"] == 20
    assert "last/30: skipped: unexpected file more" in lines[0]


def test_files_of_a_killed_save_are_deleted(copied):
    for kind in ("last", "params"):
        (copied / "checkpoints" / kind / "40.orbax-checkpoint-tmp-1" / "x").mkdir(
            parents=True
        )
    assert resume(copied)[0]["step"] == 30
    assert not list(copied.rglob("*tmp*"))


def test_unfinished_checkpoints_do_not_count(copied):
    (copied / "checkpoints" / "last" / "30" / NAME).unlink()
    meta, _, lines = resume(copied)
    assert meta["step"] == 20
    assert "never finished" in lines[0]
    shutil.rmtree(copied / "checkpoints" / "params" / "1")
    meta, value, _ = resume(copied)  # the states of phase 1 are useless without it
    assert (meta, value) == ({"step": 0}, None)


def test_a_damaged_newer_checkpoint_is_deleted_by_the_next_save(copied):
    """Its number is higher, but it does not count as one of the two that are kept."""
    (copied / "checkpoints" / "last" / "30" / NAME).write_text("{}")
    with contextlib.closing(Checkpoints(copied, print)) as checkpoints:
        checkpoints.check_identity(IDENTITY)
        meta = {"phase": 1, "step": 25}
        checkpoints.save_last(25, make_tree(25), meta)
    last = copied / "checkpoints" / "last"
    assert sorted(p.name for p in last.iterdir()) == ["20", "25"]


def test_another_run_is_refused_with_what_differs(saved):
    with contextlib.closing(Checkpoints(saved, print)) as checkpoints:
        assert checkpoints.check_identity(IDENTITY) == ""
        other = {**IDENTITY, "informational": {"jax": "2"}}
        assert checkpoints.check_identity(other) == "jax: 1 before, 2 now"
        other = {"required": {"train.lr": 2.0, "data": "a"}, "informational": {}}
        with pytest.raises(UserError, match=r"\(train\.lr: 1\.0 before, 2\.0 now\)"):
            checkpoints.check_identity(other)
        other = {"required": {**IDENTITY["required"], "new": None}}
        with pytest.raises(UserError, match=r"new: nothing before, None now"):
            checkpoints.check_identity(other)


def test_a_checkpoint_of_an_older_version_is_refused(copied):
    """Its manifest has "about" in place of "identity"."""
    newest = copied / "checkpoints" / "last" / "30"
    edit_manifest(newest, lambda x: x.update(about=x.pop("identity")))
    with (
        contextlib.closing(Checkpoints(copied, print)) as checkpoints,
        pytest.raises(UserError, match="by an older version of recjax") as error,
    ):
        checkpoints.check_identity(IDENTITY)
    assert "\n" not in str(error.value)
    assert error.value.key == str(newest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(jnp.bfloat16), r"float32'\] saved, .*bfloat16'\] needed"),
        (lambda x: x[:5], r"\[\[7\], 'float32'\] saved, \[\[5\], 'float32'\] needed"),
    ],
)
def test_other_arrays_are_refused(saved, change, message):
    like = make_tree(0)
    like["trainable"]["b"] = change(like["trainable"]["b"])
    with (
        contextlib.closing(Checkpoints(saved, print)) as checkpoints,
        pytest.raises(UserError, match=message),
    ):
        checkpoints.restore_last(like)


def fill_disk(monkeypatch):
    def write(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recjax.checkpointing.manifest.write", write)


def test_a_failed_save_is_logged_and_the_previous_one_remains(copied, monkeypatch):
    lines = []
    with contextlib.closing(Checkpoints(copied, lines.append)) as checkpoints:
        checkpoints.check_identity(IDENTITY)
        fill_disk(monkeypatch)
        checkpoints.save_last(40, make_tree(40), {"phase": 1, "step": 40})
        assert not checkpoints.wait()
        checkpoints.save_params(2, make_params(2), {"step": 2})
        assert not checkpoints.wait()
    assert "last/40: NOT SAVED: [Errno 28] No space left" in lines[0]
    monkeypatch.undo()
    assert resume(copied)[:2] == ({"phase": 1, "step": 30}, 30.0)


def test_the_phase_checkpoint_is_saved_when_there_is_room_again(tmp_path, monkeypatch):
    """Without it the states of the phase are useless, so every failure is logged."""
    lines, tree = [], make_tree(5)
    with contextlib.closing(Checkpoints(tmp_path, lines.append)) as checkpoints:
        checkpoints.check_identity(IDENTITY)
        fill_disk(monkeypatch)
        checkpoints.save_params(0, make_params(5), {"step": 0})
        for step in (1, 2):
            checkpoints.save_last(step, tree, {"phase": 0, "step": step})
            assert len(lines) == step + 1
            assert "params/0: NOT SAVED: [Errno 28]" in lines[-1]
        monkeypatch.undo()
        checkpoints.save_last(3, tree, {"phase": 0, "step": 3})
        assert checkpoints.wait()
        assert len(lines) == 3
    with contextlib.closing(Checkpoints(tmp_path, print)) as checkpoints:
        assert checkpoints.phase_checkpoint.number == 0
        assert checkpoints.step_checkpoint.number == 3


def test_the_manifest_lists_all_saved_files(saved):
    path = saved / "checkpoints" / "last" / "30" / NAME
    manifest = json.loads(path.read_text())
    assert manifest["identity"] == IDENTITY
    assert manifest["arrays"]["trainable:b"] == [[7], "float32"]
    assert all(len(digest) == 64 for digest in manifest["files"].values())


def test_frozen_parameters_are_written_once(tmp_path):
    params = make_params(0)
    with contextlib.closing(Checkpoints(tmp_path, print)) as checkpoints:
        checkpoints.save_params(0, params, {})
        checkpoints.save_params(1, {"b": params["b"] + 1}, {})
    with contextlib.closing(Checkpoints(tmp_path, print)) as checkpoints:
        assert checkpoints.phase_checkpoint.number == 1
        assert list(checkpoints.phase_checkpoint.manifest["arrays"]) == ["b"]
        restored, trained = checkpoints.restore_params(params)
    assert trained == ["b"]
    for each in (restored, read_params(tmp_path)):
        found = {path: float(x.max()) for path, x in each.items()}
        assert found == {"a/kernel": 0, "b": 1}
    next((tmp_path / "checkpoints" / "params" / "0").rglob("d/*")).unlink()
    with pytest.raises(UserError, match=r"every checkpoint .* is damaged"):
        Checkpoints(tmp_path, print)
    with pytest.raises(UserError, match=r"params/0: skipped: .* is missing"):
        read_params(tmp_path)


def test_a_numbered_directory_of_somebody_else_is_kept(tmp_path):
    lines = []
    other = tmp_path / "checkpoints" / "last" / "10"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    with contextlib.closing(Checkpoints(tmp_path, lines.append, 1)) as checkpoints:
        checkpoints.check_identity(IDENTITY)
        checkpoints.save_params(0, make_params(0), {"step": 0})
        for step in (10, 20, 30):
            checkpoints.save_last(step, make_tree(step), {"phase": 0, "step": step})
    assert (other / "notes.txt").read_text() == "mine"
    assert len(lines) == 1
    assert lines[0] == f"{other}: NOT SAVED: the path exists, and is not a checkpoint"
    assert sorted(path.name for path in other.parent.iterdir()) == ["10", "30"]


@pytest.mark.parametrize("index", ["0", "1"])
def test_parameters_of_another_run_are_refused(copied, tmp_path, index):
    other = tmp_path / "other"
    with contextlib.closing(Checkpoints(other, print)) as checkpoints:
        checkpoints.check_identity({**IDENTITY, "required": {"train.lr": 2.0}})
        for number in (0, 1):
            checkpoints.save_params(number, make_params(number), {"step": number})
    target = copied / "checkpoints" / "params" / index
    shutil.rmtree(target)
    shutil.copytree(other / "checkpoints" / "params" / index, target)
    with (
        contextlib.closing(Checkpoints(copied, print)) as checkpoints,
        pytest.raises(UserError, match=rf"params/{index}: belongs to another run"),
    ):
        checkpoints.check_identity(IDENTITY)
