"""Versions of a model: promoted, kept, rolled back, and complete after any failure."""

import itertools
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

import recjax
from recjax.common.errors import UserError
from recjax.feedback import __main__ as program
from recjax.feedback.promotion import model_lock, promote, roll_back
from recjax.inference.files import MODEL, check_files, locate_model, model_version
from recjax.inference.versions import promoted_versions
from tests.inference.test_files import sign


class Killed(BaseException):
    """Ends a function as the end of its process does: nothing else runs after it."""


@pytest.fixture
def place(finished, tmp_path):
    """A copy of a run directory with its model alone."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in (MODEL, "config.json", "results.json"):
        copy = shutil.copytree if name == MODEL else shutil.copyfile
        copy(finished / name, folder / name)
    (folder / "checkpoints").mkdir()
    return folder


@pytest.fixture
def candidates(finished, tmp_path):
    """Three models that differ in their cards, saved one after the other."""
    folders = []
    for number in range(1, 4):
        folder = tmp_path / f"candidate{number}"
        shutil.copytree(finished / MODEL, folder)
        (folder / "README.md").write_text(f"candidate {number}\n")
        sign(folder)
        time = (folder / "README.md").stat().st_mtime + number
        os.utime(folder / "manifest.json", (time, time))
        folders.append(folder)
    return folders


def version_of(place):
    """The version of a run's model, which must be complete."""
    folder = locate_model(str(place))
    check_files(folder)
    return model_version(folder)


def run_command(place, **options):
    """Runs `recjax feedback` without its console."""
    chosen = {
        "model": str(place),
        "events": "",
        "epochs": 1,
        "min_events": 1,
        "keep": 3,
        "fraction": 0.3,
        "rollback": False,
        "no_promotion": False,
    }
    program.feedback(SimpleNamespace(**chosen | options))


CALLS = ("mkdir", "replace", "symlink", "unlink", "rmdir", "utime")


def kill_at(patch, number):
    """Lets the call with this number, and all after it, end the process."""
    count = itertools.count()

    def killing(function):
        def call(*arguments, **options):
            if next(count) >= number:
                raise Killed
            return function(*arguments, **options)

        return call

    for name in CALLS:
        patch.setattr(os, name, killing(getattr(os, name)))


def until_complete(action, before, after):
    """Kills an action at each of its calls in turn; returns how many there were."""
    for number in itertools.count():
        before()
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number)
            try:
                action()
            except Killed:
                pass
            else:
                return number
        after()
    return None


@pytest.mark.parametrize("promoted", [0, 1])
def test_a_killed_promotion_leaves_a_model(place, candidates, tmp_path, promoted):
    """The first, which turns the directory into a link, and one after it."""
    old = version_of(place)
    for candidate in candidates[:promoted]:
        old = promote(candidate, place / MODEL, keep=1)
    new = model_version(candidates[promoted])
    shutil.copytree(place, tmp_path / "kept", symlinks=True)

    def before():
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "kept", place, symlinks=True)

    def after():
        assert version_of(place) in (old, new)
        for version in promoted_versions(place / MODEL):
            check_files(place / "model.versions" / version)
        assert promote(candidates[2], place / MODEL, keep=9) == version_of(place)
        names = [x.name for x in (place / "model.versions").iterdir()]
        assert not [name for name in names if name.startswith(".part")]
        assert roll_back(place / MODEL) in (old, new)
        assert version_of(place) in (old, new)

    number = until_complete(
        lambda: promote(candidates[promoted], place / MODEL, keep=1), before, after
    )
    assert number > 10
    assert version_of(place) == new


def test_a_killed_rollback_leaves_a_model(place, candidates):
    old = version_of(place)
    new = model_version(candidates[0])

    def after():
        found = version_of(place)
        if found == new:
            assert roll_back(place / MODEL) == old
        with pytest.raises(UserError, match="there is no earlier version"):
            roll_back(place / MODEL)

    until_complete(
        lambda: roll_back(place / MODEL),
        lambda: promote(candidates[0], place / MODEL, keep=3),
        after,
    )
    assert version_of(place) == old


@pytest.mark.parametrize("call", ["replace", "symlink"])
def test_a_failed_first_promotion_leaves_the_directory(
    place, candidates, monkeypatch, call
):
    """A full disk, for example: nothing has to be repaired afterwards."""
    old, function = version_of(place), getattr(os, call)
    with monkeypatch.context() as patch:

        def fail(source, target, *options):
            if call == "symlink" or str(target) == str(place / MODEL):
                patch.setattr(os, call, function)  # fails once
                raise OSError(28, "No space left on device")
            function(source, target, *options)

        patch.setattr(os, call, fail)
        with pytest.raises(UserError, match="No space left on device"):
            promote(candidates[0], place / MODEL, keep=3)
    assert (place / MODEL).is_dir()
    assert not (place / MODEL).is_symlink()
    assert version_of(place) == old


@pytest.mark.parametrize("name", ["shop", "shop/model"])
def test_a_model_that_lost_its_link_is_found(place, monkeypatch, name):
    """As after the end of a program between moving the directory and linking it."""
    monkeypatch.chdir(place.parent)
    old = version_of(place)
    (place / "model.versions").mkdir()
    (place / MODEL).rename(place / "model.versions" / old)
    assert len(recjax.load(name).items) == 25
    assert (place / MODEL).is_symlink()
    with pytest.raises(UserError, match="there is no earlier version"):
        roll_back(place / MODEL)


def test_a_link_to_a_deleted_version_is_named(place, candidates):
    version = promote(candidates[0], place / MODEL, keep=3)
    shutil.rmtree(place / "model.versions" / version)
    with pytest.raises(
        UserError, match=f"is a link to model.versions/{version}, which"
    ):
        locate_model(str(place))


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: b"\xff\xfe" + raw,
        lambda raw: raw[:-5],  # a cut line
        lambda raw: raw[: raw.index(b"\n") + 1],
        lambda raw: b"",
        lambda raw: b"../../x\n/etc\n" + raw[-13:],
        None,
    ],
)
def test_a_damaged_list_of_promotions_loses_no_version(place, candidates, edit):
    expected = [version_of(place)]
    expected += [promote(folder, place / MODEL, keep=9) for folder in candidates]
    path = place / "model.versions" / "promoted.txt"
    if edit is None:
        path.unlink()
    else:
        path.write_bytes(edit(path.read_bytes()))
    assert promoted_versions(place / MODEL) == expected
    assert roll_back(place / MODEL) == expected[-2]
    assert version_of(place) == expected[-2]
    assert promoted_versions(place / MODEL) == expected[:-1]


def test_a_version_that_was_rolled_back_is_not_an_earlier_one(place, candidates):
    first = version_of(place)
    promote(candidates[0], place / MODEL, keep=9)
    roll_back(place / MODEL)
    last = promote(candidates[1], place / MODEL, keep=9)
    assert promoted_versions(place / MODEL) == [first, last]
    (place / "model.versions" / "promoted.txt").write_text("")
    assert promoted_versions(place / MODEL)[-1] == last


def test_a_damaged_copy_of_the_candidate_is_replaced(place, candidates):
    old = version_of(place)
    version = promote(candidates[0], place / MODEL, keep=9)
    roll_back(place / MODEL)
    (place / "model.versions" / version / "README.md").unlink()
    assert promote(candidates[0], place / MODEL, keep=9) == version == version_of(place)
    assert promoted_versions(place / MODEL) == [old, version]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_no_more_versions_are_kept_than_asked_for(place, candidates, keep):
    expected = [version_of(place)]
    expected += [promote(folder, place / MODEL, keep) for folder in candidates]
    folders = [x.name for x in (place / "model.versions").iterdir() if x.is_dir()]
    assert sorted(folders) == sorted(expected[-keep:])
    assert promoted_versions(place / MODEL) == expected[-keep:]


def test_a_version_that_was_rolled_back_is_deleted_by_the_next(place, candidates):
    """Each is a copy of the whole model; other directories are not versions."""
    (place / "model.versions" / "notes").mkdir(parents=True)
    first = version_of(place)
    second = promote(candidates[0], place / MODEL, keep=2)
    promote(candidates[1], place / MODEL, keep=2)
    assert roll_back(place / MODEL) == second
    last = promote(candidates[2], place / MODEL, keep=2)
    folders = [x.name for x in (place / "model.versions").iterdir() if x.is_dir()]
    assert sorted(folders) == sorted([second, last, "notes"])
    assert first not in folders


def test_a_model_that_is_a_link_elsewhere_is_not_promoted(place, candidates, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(place / MODEL)
    for action in (
        lambda: promote(candidates[0], link, keep=3),
        lambda: roll_back(link),
        lambda: run_command(link, rollback=True),
    ):
        with pytest.raises(UserError, match="current: is a link to "):
            action()
    assert link.readlink() == place / MODEL


@pytest.mark.parametrize("rollback", [True, False])
def test_a_second_command_on_one_model_is_refused(
    place, candidates, monkeypatch, rollback
):
    """It would replace a version that its own candidate was not compared with."""
    promote(candidates[0], place / MODEL, keep=3)
    learned = []
    monkeypatch.setattr(program, "_learn", learned.append)
    with (
        model_lock(place / MODEL),
        pytest.raises(UserError, match=r"another recjax\.feedback is using it"),
    ):
        run_command(place / MODEL, events="x", rollback=rollback)
    assert not learned
    run_command(place, events="x")
    run_command(place, events="x", no_promotion=True)
    assert len(learned) == 2


def test_the_command_holds_the_lock_while_it_learns(place, monkeypatch):
    def learn(_):
        with pytest.raises(UserError, match="is using it"), model_lock(place / MODEL):
            pass

    monkeypatch.setattr(program, "_learn", learn)
    run_command(place, events="x")


def test_a_lock_without_a_promotion_leaves_nothing(place):
    before = sorted(place.rglob("*"))
    with model_lock(place / MODEL):
        assert (place / "model.versions").is_dir()
    assert sorted(place.rglob("*")) == before
    with pytest.raises(UserError, match="no earlier version"):
        run_command(place, rollback=True)
    assert sorted(place.rglob("*")) == before


def test_the_lock_ends_with_its_process(place):
    code = f"""
import os
from pathlib import Path
from recjax.feedback.promotion import model_lock
with model_lock(Path({str(place / MODEL)!r})):
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    with model_lock(place / MODEL):
        pass


def test_a_long_name_is_no_directory(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        locate_model(str(tmp_path / ("x" * 300)))


def test_only_a_local_model_can_be_promoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--model: owner/shop: only a model in a local"):
        run_command("owner/shop", events="x")
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match="notes: is not a model of recjax"):
        run_command("notes", events="x")
    assert [x.name for x in tmp_path.iterdir()] == ["notes"]


def test_models_in_one_directory_have_their_own_versions(place, tmp_path):
    for name in ("a", "b"):
        model = recjax.load(place)
        if name == "b":
            model.add_titled_items(["n1"], ["one two drama"], ["one two"])
        model.save_pretrained(tmp_path / "models" / name)
        model.add_titled_items([f"new {name}"], ["one three drama"], ["one three"])
        model.save_pretrained(tmp_path / "candidate")
        promote(tmp_path / "candidate", tmp_path / "models" / name, keep=2)
    for name, number in (("a", 25), ("b", 26)):
        assert len(recjax.load(tmp_path / "models" / name).items) == number + 1
        roll_back(tmp_path / "models" / name)
        assert len(recjax.load(tmp_path / "models" / name).items) == number


def copies(place, tmp_path, number):
    """Candidates that differ in their items."""
    for turn in range(number):
        model = recjax.load(place)
        model.add_items({f"n{turn}": "one two drama"})
        model.save_pretrained(tmp_path / f"candidate{turn}")
        yield tmp_path / f"candidate{turn}"


def test_versions_are_promoted_kept_and_rolled_back(place, tmp_path):
    model = place / MODEL
    sizes = [len(recjax.load(place).items)]
    for candidate in copies(place, tmp_path, 3):
        promote(candidate, model, keep=3)
        assert model.is_symlink()
        sizes.append(len(recjax.load(place).items))
    assert sizes == [25, 26, 27, 28]
    assert len([p for p in (place / "model.versions").iterdir() if p.is_dir()]) == 3
    roll_back(model)
    assert len(recjax.load(place).items) == 27
    roll_back(model)
    assert len(recjax.load(place).items) == 26
    with pytest.raises(UserError, match="no earlier version"):
        roll_back(model)


def test_a_damaged_candidate_is_refused(place, tmp_path):
    (candidate,) = copies(place, tmp_path, 1)
    (candidate / "items.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="has changed since it was saved"):
        promote(candidate, place / MODEL, keep=2)
    assert len(recjax.load(place).items) == 25
