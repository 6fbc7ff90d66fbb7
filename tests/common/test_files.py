"""Files that appear complete or not at all, and hashes of files."""

import hashlib
import os

import pytest

from recjax.common.files import atomic_files, file_sha256, sha256, write_text_atomically

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_replaced_when_it_is_complete(tmp_path, monkeypatch, sync):
    path, synced = tmp_path / "a.txt", []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    write_text_atomically(path, "old", sync=sync)
    with atomic_files(path, tmp_path / "b.txt", sync=sync) as (first, second):
        first.write_text("nëw", encoding="utf-8")
        second.write_text("b")
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "nëw"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]
    assert synced == ([3, 4, 1] if sync else [])  # complete by then


def test_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomically(path, "old")

    def fail():
        with atomic_files(path) as (part,):
            part.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 31, 32, 2**20, 2**20 + 33, 2**21])
def test_a_file_is_hashed_without_its_last_bytes(tmp_path, size):
    raw = bytes(i % 251 for i in range(size))
    path = tmp_path / "a"
    path.write_bytes(raw)
    assert file_sha256(path) == sha256(raw) == hashlib.sha256(raw).hexdigest()
    assert file_sha256(path, skip_last=32) == sha256(raw[: max(size - 32, 0)])
