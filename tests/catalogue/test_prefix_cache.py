"""The disk cache of the frozen prefix: hits, damaged files, and eviction."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recjax.catalogue.prefix_cache import PrefixCache
from recjax.common.errors import UserError
from recjax.common.files import hash_arrays
from recjax.config import base
from recjax.models.encoders import bert
from recjax.run import train
from tests.conftest import TINY_BERT


def put(cache, key, array):
    out = cache.allocate(array.shape)
    out[:] = array
    return cache.commit(key, out)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_committed_array_is_loaded(tmp_path, dtype, mapped):
    above = 10 if mapped else 1e9
    cache = PrefixCache(tmp_path / "new", dtype, max_bytes=1e9, mapped_above=above)
    array = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    assert cache.load("a") is None
    kept = put(cache, "a", array)
    found = cache.load("a")
    for x in (kept, found):
        assert isinstance(x, np.memmap) == mapped
        assert x.dtype == cache.dtype
        np.testing.assert_array_equal(x, array.astype(cache.dtype))
    assert cache.load("b") is None
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.npy"]


def test_two_processes_do_not_share_a_partial_file(tmp_path):
    first, second = (
        PrefixCache(tmp_path, "float32", max_bytes=1e9, mapped_above=0)
        for _ in range(2)
    )
    x, y = first.allocate((5, 4)), second.allocate((5, 4))
    x[:], y[:] = 1, 2
    assert (first.commit("x", x) == 1).all()
    second.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
    assert (first.load("x") == 1).all()


def test_files_may_disappear_during_eviction(tmp_path):
    for name in ("a.npy", "b.part"):
        (tmp_path / name).symlink_to(tmp_path / "gone")
    cache = PrefixCache(tmp_path, "float32", max_bytes=1e9, mapped_above=0)
    assert isinstance(cache.allocate((5, 4)), np.memmap)


@pytest.mark.parametrize("damage", [b"", b"no array", "short", "flipped"])
def test_a_damaged_file_is_not_loaded(tmp_path, damage):
    cache = PrefixCache(tmp_path, "float32", max_bytes=1e9, mapped_above=1e9)
    put(cache, "a", np.ones((5, 4), np.float32))
    path = tmp_path / "a.npy"
    if damage == "short":
        damage = path.read_bytes()[:-8]
    elif damage == "flipped":
        damage = bytearray(path.read_bytes())
        damage[150] ^= 1
    path.write_bytes(damage)
    assert cache.load("a") is None


def test_a_read_only_cache_is_used(tmp_path, monkeypatch):
    cache = PrefixCache(tmp_path, "float32", max_bytes=1e6, mapped_above=1e6)
    put(cache, "key", np.full((3, 2), 7))

    def refuse(path):
        raise PermissionError(30, "Read-only file system", path)

    monkeypatch.setattr(os, "utime", refuse)
    np.testing.assert_array_equal(cache.load("key"), np.full((3, 2), 7))


def test_a_full_disk_leaves_the_array_in_memory(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = PrefixCache(tmp_path, "float32", max_bytes=1e9, mapped_above=1e9)
    kept = put(cache, "a", np.ones((5, 4), np.float32))
    assert not isinstance(kept, np.memmap)
    assert (kept == 1).all()
    assert cache.load("a") is None
    assert not list(tmp_path.iterdir())
    cache = PrefixCache(tmp_path, "float32", max_bytes=1e9, mapped_above=10)
    with pytest.raises(UserError, match=r"more than text\.cache_ram_gib"):
        cache.allocate((5, 4))
    assert not list(tmp_path.iterdir())


def test_the_least_recently_used_file_is_evicted_first(tmp_path):
    # 1 KiB, and a header of 128 bytes and a checksum of 32.
    array = np.ones((256, 1), np.float32)
    cache = PrefixCache(tmp_path, "float32", max_bytes=3000, mapped_above=1e9)
    for i, key in enumerate("ab"):
        put(cache, key, array)
        os.utime(tmp_path / f"{key}.npy", (i, i))
    assert cache.load("a") is not None  # marks it as used
    put(cache, "c", array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "c.npy"]
    put(cache, "big", np.ones((4000, 1), np.float32))  # more than max_bytes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "c.npy"]


def test_the_hash_covers_every_byte():
    x = np.arange(6.0)
    known = {hash_arrays([("a", x)], 1)}
    y = x.copy()
    y[-1] = np.nextafter(y[-1], 9)
    for arrays, setting in (
        ([("a", y)], 1),
        ([("b", x)], 1),
        ([("a", x.reshape(2, 3))], 1),
        ([("a", x.astype(np.float32))], 1),
        ([("a", x)], 2),
        ([("a", x), ("a", x)], 1),
    ):
        known.add(hash_arrays(arrays, setting))
    assert len(known) == 7
    assert hash_arrays([("a", x.copy())], 1) in known


def test_a_cached_prefix_gives_the_same_results(config, tmp_path, monkeypatch, capsys):
    """The next run reads the prefix and has the same results.

    Another depth, other texts or another dtype miss the cache.
    """
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    c = config.unlock()
    c.text.cache_disk_gib, c.loss.negatives = 1.0, "in_batch"
    c.train.phases = (
        base.phase("frozen", epochs=1),
        base.phase("top", epochs=1, lr_mults=base.freeze(1, layers=3)),
    )

    def run(name, **changes):
        c = config.copy_and_resolve_references().unlock()
        c.text.update(changes)
        final = train.run(c.lock(), str(tmp_path / name))
        final.pop("seconds")
        final.pop("peak_memory_mib")
        out = capsys.readouterr().out
        return final, out.count("read from"), out.count("kept in")

    first, read, kept = run("first")
    assert (read, kept) == (1, 2)  # zero-shot and phase 1 need the same one
    again, read, kept = run("again")
    assert (read, kept) == (3, 0)
    assert again == first
    mapped, read, kept = run("mapped", cache_ram_gib=0.0)
    assert (read, kept) == (3, 0)
    assert mapped == first
    without, read, kept = run("without", cache_disk_gib=0.0)
    assert (read, kept) == (0, 0)
    assert without == first
    for name, changes in (
        ("texts", {"template": "{title}"}),
        ("dtype", {"cache_dtype": "bfloat16"}),
    ):
        _, read, kept = run(name, **changes)
        assert (read, kept) == (1, 2), name
    half = run("half", cache_dtype="bfloat16", cache_ram_gib=0.0)
    assert half[1:] == (3, 0)
    assert half[0]["zero_shot"] != first["zero_shot"]


def test_changed_weights_or_code_miss_the_cache(config, tmp_path, monkeypatch, capsys):
    """One frozen weight differs in its last bit, or the code differs."""
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    encoder = shutil.copytree(TINY_BERT, tmp_path / "bert")
    c = config.unlock()
    c.text.encoder, c.text.cache_disk_gib = str(encoder), 1.0

    def read(name):
        train.run(c, str(tmp_path / name))
        return capsys.readouterr().out.count("read from")

    assert read("first") == 1  # zero-shot computes it, phase 1 reads it
    assert read("again") == 2
    path = encoder / "model.safetensors"
    weights = load_file(path)
    kernel = weights["encoder.layer.1.output.dense.weight"]
    kernel[0, 0] = np.nextafter(kernel[0, 0], np.float32(9))
    save_file(weights, path)
    assert read("weights") == 1
    code = tmp_path / "bert.py"
    code.write_text(Path(bert.__file__).read_text() + "# changed\n")
    monkeypatch.setattr(bert, "__file__", str(code))
    assert read("code") == 1


def test_all_negatives_need_the_prefix_in_memory(config, tmp_path, monkeypatch):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    c = config.unlock()
    c.text.cache_disk_gib, c.text.cache_ram_gib = 1.0, 0.0
    rules = base.freeze(1, layers=3)
    c.train.phases = (base.phase("top", epochs=1, lr_mults=rules),)
    with pytest.raises(UserError, match=r"^negatives: 'all' needs the whole"):
        train.run(c.lock(), str(tmp_path / "run"))
