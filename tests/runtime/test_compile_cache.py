"""Tests of the cache of compiled programs."""

import os
from pathlib import Path

import jax
import pytest

from recjax.runtime import compile_cache

pytestmark = pytest.mark.unit

CPUINFO = """processor\t: 0
model name\t: {model}
microcode\t: {microcode}
cpu MHz\t\t: {mhz}
flags\t\t: {flags}

processor\t: 1
model name\t: another
"""


def key(monkeypatch, **changes):
    values = {"model": "EPYC", "microcode": "0x1", "mhz": "2445.4", "flags": "fma avx2"}
    text = CPUINFO.format(**(values | changes))
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: text)
    return compile_cache.platform_key()


def test_only_what_decides_the_instructions_makes_another_platform(monkeypatch):
    platform = key(monkeypatch)
    assert key(monkeypatch, microcode="0x2", mhz="2500.0") == platform
    assert key(monkeypatch, model="Xeon") != platform
    assert key(monkeypatch, flags="fma avx512f") != platform


@pytest.fixture
def config():
    """The jax config, which is restored afterwards."""
    names = [
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    ]
    before = {name: jax.config.values[name] for name in names}
    yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_cache_of_recjax(config, monkeypatch, tmp_path):
    monkeypatch.setattr(compile_cache, "cache_dir", lambda: tmp_path)
    config.update("jax_compilation_cache_dir", None)
    compile_cache.enable_compile_cache()
    folder = Path(config.values["jax_compilation_cache_dir"])
    assert folder.parent == tmp_path / "compiled"


def test_a_cache_that_the_user_chose_is_kept(config, tmp_path):
    config.update("jax_compilation_cache_dir", str(tmp_path))
    compile_cache.enable_compile_cache()
    assert config.values["jax_compilation_cache_dir"] == str(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_named(config, monkeypatch, tmp_path):
    monkeypatch.setattr(compile_cache, "cache_dir", lambda: tmp_path)
    config.update("jax_compilation_cache_dir", None)
    assert compile_cache.enable_compile_cache() == ""
    Path(config.values["jax_compilation_cache_dir"]).chmod(0o500)
    config.update("jax_compilation_cache_dir", None)
    assert "Permission denied" in compile_cache.enable_compile_cache()


def test_a_cache_that_cannot_be_written_is_named(config, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(compile_cache, "cache_dir", lambda: tmp_path / "file")
    config.update("jax_compilation_cache_dir", None)
    warning = compile_cache.enable_compile_cache()
    assert "file/compiled" in warning
    assert "RECJAX_CACHE" in warning
    assert config.values["jax_compilation_cache_dir"] is None
