"""Places in which a model cannot be saved without a loss."""

import os
import shutil

import pytest

import recjax
from recjax.common.errors import UserError
from recjax.inference import files
from recjax.inference.files import (
    CONFIG,
    check_files,
    check_target,
    load_parts,
    save_parts,
)
from tests.feedback.test_promotion import until_complete


@pytest.fixture
def parts(finished):
    return load_parts(finished / "model")[0]


def save(parts, folder):
    save_parts(parts, folder, [], "card\n")


def content(folder):
    """All names below a directory."""
    return sorted(str(x.relative_to(folder)) for x in folder.rglob("*"))


@pytest.mark.parametrize("target", ["version", "missing"])
def test_a_model_is_not_saved_through_a_link(parts, tmp_path, target):
    """A version of a model must stay what its name says."""
    save(parts, tmp_path / "version")
    link = tmp_path / "model"
    link.symlink_to(target)
    before = content(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match=f"{link}: is a link to {target}"):
            save(parts, link)
    assert link.is_symlink()
    assert content(tmp_path) == before


def test_saving_keeps_what_is_next_to_the_model(parts, tmp_path):
    others = [tmp_path / name for name in (".part.mod", ".old.mod", ".old.link")]
    for other in others:
        other.mkdir()
        (other / "mine.txt").write_text("mine")
    for _ in range(2):
        save(parts, tmp_path / "mod")
    assert all((other / "mine.txt").read_text() == "mine" for other in others)
    assert {x.name for x in tmp_path.iterdir()} == {"mod", *(x.name for x in others)}


@pytest.mark.parametrize("kind", ["directory", "link to a directory", "dead link"])
def test_saving_keeps_what_is_in_the_model(parts, tmp_path, kind):
    folder = tmp_path / "model"
    save(parts, folder)
    own = folder / "encoder" / "mine"
    if kind == "directory":
        own.mkdir()
    else:
        (tmp_path / "elsewhere").mkdir()
        own.symlink_to(tmp_path / ("elsewhere" if "to" in kind else "nowhere"))
    with pytest.raises(UserError, match="has other files than a model"):
        save(parts, folder)
    assert os.path.lexists(own)


def test_a_run_does_not_replace_a_directory_of_the_user(parts, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="has other files than a model"):
        save(parts, folder)
    assert content(tmp_path) == ["model", "model/notes.txt"]


def test_an_empty_directory_becomes_the_model(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    save(parts, tmp_path / "model")
    load_parts(tmp_path / "model")
    save(parts, files.Path("model/../other/deep"))
    load_parts(tmp_path / "other" / "deep")


def test_a_file_that_appears_while_a_model_is_written_is_kept(
    parts, tmp_path, monkeypatch
):
    folder = tmp_path / "model"
    save(parts, folder)
    write = files._write

    def slow_write(*arguments):
        write(*arguments)
        (folder / "notes.txt").write_text("mine")

    monkeypatch.setattr(files, "_write", slow_write)
    with pytest.raises(UserError, match="has other files than a model"):
        save(parts, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [x.name for x in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("failing", [{1}, {2}, {2, 3}])
def test_a_failed_save_leaves_the_old_model(parts, tmp_path, monkeypatch, failing):
    """Renames move the old one away, the new one to its place, and the old one back."""
    folder = tmp_path / "model"
    save(parts, folder)
    (folder / "README.md").write_text("old\n")
    calls, replace = [], os.replace

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) in failing:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="model: cannot be written"):
        save(parts, folder)
    # Where it could not be moved back, it is still complete under another name.
    (card,) = tmp_path.rglob("README.md")
    assert card.read_text() == "old\n"
    assert (card.parent == folder) == (failing != {2, 3})
    assert len(list(tmp_path.iterdir())) == 1


def test_a_save_after_one_that_was_killed_leaves_the_model_alone(parts, tmp_path):
    """Wherever it is killed a whole model is there, at last in its place."""
    folder = tmp_path / "model"
    save(parts, folder)

    def after():
        (found, *_) = [x.parent for x in tmp_path.rglob("manifest.json")]
        check_files(found)
        save(parts, folder)
        assert [x.name for x in tmp_path.iterdir()] == ["model"]
        check_files(folder)

    number = until_complete(lambda: save(parts, folder), lambda: None, after)
    assert number > 5
    assert [x.name for x in tmp_path.iterdir()] == ["model"]


def test_the_old_model_is_put_back_after_a_kill_between_the_renames(parts, tmp_path):
    own, folder = tmp_path / ".recjax-model.model", tmp_path / "model"
    save(parts, own / "old")
    (own / ".recjax").write_text('{"kind": "model"}\n')
    (own / "old" / "README.md").write_text("old\n")

    def fail(*_):
        assert (folder / "README.md").read_text() == "old\n"
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_write", fail)
        with pytest.raises(UserError, match="No space left"):
            save(parts, folder)
    assert [x.name for x in tmp_path.iterdir()] == ["model"]


def test_two_programs_do_not_save_into_one_place_at_a_time(parts, tmp_path):
    folder = tmp_path / "model"
    with (
        files._temporary_folder(folder),
        pytest.raises(UserError, match=r"\.recjax-model\.model: .* is using it"),
    ):
        save(parts, folder)
    save(parts, folder)


def test_files_of_the_user_in_the_temporary_directory_are_kept(parts, tmp_path):
    other = tmp_path / ".recjax-model.model" / "new" / "notes.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    with pytest.raises(UserError, match=r"is not empty \(new\)"):
        save(parts, tmp_path / "model")
    assert other.read_text() == "mine"


@pytest.mark.parametrize("place", ["file/model", "file/deep/model", "file"])
def test_a_place_that_cannot_be_written_is_named(parts, model, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path / place}: ") as e:
        save(parts, tmp_path / place)
    assert "\n" not in str(e.value)
    assert content(tmp_path) == ["file"]


def test_a_name_that_is_too_long_is_refused(parts, tmp_path):
    with pytest.raises(UserError, match="File name too long"):
        save(parts, tmp_path / ("x" * 300))


def test_a_damaged_model_is_not_replaced(parts, tmp_path):
    save(parts, tmp_path / "model")
    (tmp_path / "model" / CONFIG).write_text("{")
    with pytest.raises(UserError, match="has other files than a model"):
        check_target(tmp_path / "model")


def test_saved_models_load_wherever_they_are_copied(model, tmp_path):
    model.save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    model.save_pretrained(tmp_path / "b")
    assert recjax.load(tmp_path / "b").items.equals(model.items)
