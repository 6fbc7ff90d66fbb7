"""Fetching: verified, cached, and never silently wrong."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from recjax.common.errors import UserError
from recjax.common.files import cache_dir
from recjax.data.ingest.sources import DATA_SETS, Package, locate_data, locate_encoder

GOOD = b"user_id:token\n"


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A fake package registry: what pip would put into the target folder."""
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(GOOD).hexdigest()
    package = Package("toy==1", "toy/data", {"toy.inter": digest})
    monkeypatch.setitem(DATA_SETS, "toy", package)
    state = {"calls": 0, "content": GOOD, "fail": False, "junk": False, "flip": False}

    def pip(command, **kwargs):
        state["calls"] += 1
        assert command[1:5] == ["-m", "pip", "download", "--quiet"]
        assert "--no-deps" in command
        if state["fail"]:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")
        wheel = f"{command[command.index('--dest') + 1]}/toy-1-py3-none-any.whl"
        if state["junk"]:
            with open(wheel, "wb") as f:
                f.write(b"not a zip")
        else:
            with zipfile.ZipFile(wheel, "w") as z:
                z.writestr("toy/data/toy.inter", state["content"])
        if state["flip"]:  # a compressed wheel with damage inside
            content = os.urandom(4096)
            with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as z:
                z.writestr("toy/data/toy.inter", content.hex())
            data = bytearray(Path(wheel).read_bytes())
            data[200:260] = bytes(60)
            Path(wheel).write_bytes(data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return state


def test_fetched_once_then_cached(registry):
    folder = locate_data("toy")
    assert (folder / "toy.inter").read_bytes() == GOOD
    registry["fail"] = True  # the registry is gone
    assert locate_data("toy") == folder
    assert registry["calls"] == 1


def test_corrupt_download_is_deleted(registry):
    registry["content"] = b"user_id:token\r"
    with pytest.raises(UserError, match=r"toy\.inter from toy==1 has an unexpected"):
        locate_data("toy")
    assert not list((cache_dir() / "toy").iterdir())


def test_corrupt_cache_is_fetched_again(registry):
    file = locate_data("toy") / "toy.inter"
    file.write_bytes(b"rot")
    assert locate_data("toy") == file.parent
    assert file.read_bytes() == GOOD


def test_no_network_is_one_line(registry):
    registry["fail"] = True
    with pytest.raises(UserError, match=r"could not download toy==1: ERROR: no net"):
        locate_data("toy")


def test_a_python_without_pip_is_named(registry, monkeypatch):
    error = f"{sys.executable}: No module named pip"
    done = subprocess.CompletedProcess([], 1, "", error)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(
        UserError, match="has no pip to download toy==1 with; run python"
    ):
        locate_data("toy")


@pytest.mark.parametrize("how", ["junk", "flip"])
def test_broken_wheel_is_one_line(registry, how):
    registry[how] = True
    with pytest.raises(UserError, match="is corrupt"):
        locate_data("toy")


def test_names_and_directories(tmp_path, monkeypatch):
    assert locate_data(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert locate_data(f"~/{tmp_path.name}") == tmp_path
    (tmp_path / "file.csv").touch()
    for locate, name, message in [
        (locate_data, "no/such", "data.source: 'no/such' is neither a dir"),
        (locate_data, f"{tmp_path}/file.csv", "is a file; give its directory"),
        (locate_data, "", "data.source: '' is not a path"),
        (locate_data, "~nobody-here/x", "there is no home directory"),
        (locate_data, "all-MiniLM-L6-v2", r"nor a known data set \(ml-100k"),
        (
            locate_encoder,
            "bert",
            r"text.encoder: .* \(all-MiniLM-L6-v2\) nor a",
        ),
        (locate_encoder, "a\0b", "is not a path"),
        (locate_encoder, "caf\udce9", r"text.encoder: 'caf\\udce9' is not valid UTF-8"),
    ]:
        with pytest.raises(UserError, match=message):
            locate(name)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A cache of the Hub's client: links to files that are named by their digest."""
    import huggingface_hub

    raw = {"config.json": b"{}", "model.safetensors": b"weights"}
    git = hashlib.sha1(b"blob 2\0{}").hexdigest()  # from `git hash-object`
    assert git == "9e26dfeeb6e641a33dae4961196235bdb965b21b"
    lfs = hashlib.sha256(raw["model.safetensors"]).hexdigest()
    names = {"config.json": git, "model.safetensors": lfs}
    requests = []

    def snapshot(name, revision, allow_patterns):
        assert "model.safetensors" in allow_patterns
        requests.append((name, revision))
        if name == "who/none":
            raise OSError("404\nlong story")
        folder = tmp_path / "snapshots" / "1234abcd"
        if folder.exists():
            return str(folder)
        folder.mkdir(parents=True)
        for file, digest in names.items():
            (tmp_path / digest).write_bytes(raw[file])
            (folder / file).symlink_to(tmp_path / digest)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return raw, requests


def test_hub_ids_go_to_the_hub(hub, capsys):
    assert locate_encoder("who/what").name == "1234abcd"
    assert "use who/what@1234abcd to pin this revision" in capsys.readouterr().out
    with pytest.raises(
        UserError,
        match=r"who/none: is no directory, and could not be downloaded .* Hub \(404\)",
    ):
        locate_encoder("who/none")
    assert hub[1] == [("who/what", None), ("who/none", None)]


def test_a_pinned_revision_is_requested(hub, capsys):
    locate_encoder("who/what@v1.0")
    assert hub[1] == [("who/what", "v1.0")]
    assert capsys.readouterr().out == ""


def test_other_files_in_the_cache_of_the_hub(hub, tmp_path):
    """Files of other programs, and a cache with copies instead of links."""
    folder = locate_encoder("who/what")
    (folder / "1_Pooling").mkdir()
    (folder / "vocab.txt").write_text("others'")
    for file in ("config.json", "model.safetensors"):
        copy = (folder / file).read_bytes()
        (folder / file).unlink()
        (folder / file).write_bytes(copy)
    assert locate_encoder("who/what") == folder


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_files_of_the_hub_are_verified(hub, file):
    hub[0][file] += b" and more"
    with pytest.raises(UserError, match=rf"{file}: its content does not match"):
        locate_encoder("who/what")
