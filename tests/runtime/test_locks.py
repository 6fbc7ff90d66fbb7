"""Tests of the mark and the lock of a directory."""

import json
import shutil

import pytest

from recjax.common.errors import UserError
from recjax.runtime import locks
from recjax.runtime.locks import MARK, check_directory, directory_lock, is_locked

pytestmark = pytest.mark.unit


def lock(folder, kind="run"):
    return directory_lock(folder, kind, "--workdir")


def test_a_new_or_empty_directory_is_marked(tmp_path):
    (tmp_path / "empty" / "lost+found").mkdir(parents=True)
    for name in ("empty", "a/new/one"):
        folder = tmp_path / name
        with lock(folder):
            assert json.loads((folder / MARK).read_text())["kind"] == "run"
            assert is_locked(folder)
        assert not is_locked(folder)
        (folder / "results.md").touch()
        with lock(folder):  # its own files do not matter
            pass


@pytest.mark.parametrize("name", ["config.json", ".lock", "checkpoints", ".hidden"])
def test_a_directory_with_other_files_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    message = rf"--workdir {tmp_path}: is not empty \({name}\) and was not made by"
    with pytest.raises(UserError, match=message), lock(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / MARK).touch()  # the remedy that the message names
    with lock(tmp_path):
        assert (tmp_path / name).exists()


def test_a_file_or_a_directory_of_another_kind_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: Not a directory"):
        check_directory(tmp_path / "file", "run", "--workdir")
    with lock(tmp_path / "sweep", "sweep"):
        pass
    with pytest.raises(UserError, match="of kind 'sweep', not 'run'"):
        check_directory(tmp_path / "sweep", "run", "--workdir")


def test_the_holder_of_a_lock_is_named(tmp_path):
    with (
        lock(tmp_path),
        pytest.raises(UserError, match=r"process \d+ on .* is using it"),
        lock(tmp_path),
    ):
        pass


def test_a_lost_lock_is_found(tmp_path):
    folder = tmp_path / "run"
    with lock(folder) as held:
        held.check()
        shutil.rmtree(folder)
        with pytest.raises(UserError, match="was deleted or replaced"):
            held.check()
        folder.mkdir()
        with lock(folder), pytest.raises(UserError, match="was deleted or replaced"):
            held.check()


def test_systems_without_locks_of_files_are_supported(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with lock(tmp_path) as held:
        held.check()
        assert not is_locked(tmp_path)
