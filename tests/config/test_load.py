"""Saved configs, paths of configs, and the names of the package."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import recjax
from recjax.common.errors import UserError
from recjax.config import base
from recjax.config.keys import declared_keys
from recjax.config.load import check_key, config_path, example_names, load_json
from recjax.config.renamed import RENAMED

ROOT = Path(__file__).parents[2]


def test_a_saved_config_is_loaded_bit_for_bit(tmp_path):
    config = base.get_config().unlock()
    config.train.phases = (
        base.phase("a", lr_mults=base.freeze(2, layers=6)),
        base.phase("b", epochs=3, negatives="uniform"),
    )
    config.head.fusion = ("ease",)
    config.user_tower.dropout = 0.0
    path = tmp_path / "config.json"
    path.write_text(config.to_json(indent=2) + "\n")
    loaded = load_json(path)
    assert loaded.is_locked
    assert loaded.to_json(indent=2) == config.to_json(indent=2)
    assert loaded.to_dict() == config.to_dict()  # tuples again, not lists
    assert loaded.train.phases[0].lr_mults == config.train.phases[0].lr_mults


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"train": {"batchsize": 3}}, 'no such key; did you mean "train.batch_size"'),
        ({"train": {"phases": [{"lrs": 3}]}}, r"train.phases\[0\].lrs: no such key"),
        ({"train": {"phases": 3}}, "train.phases: 3 is not a list of phases"),
        ({"trian": {}}, 'trian: no such key; did you mean "train"'),
        ({"train": {"batch_size": "many"}}, "batch_size: 'many' is not of type int"),
        ({"train": 3}, "train: 3 is not a section"),
        ([], "not a JSON object"),
        *(
            ({old.partition(".")[0]: {old.partition(".")[2]: 1}}, f"called {new}")
            for old, new in RENAMED.items()
        ),
    ],
)
def test_mistakes_in_a_saved_config(tmp_path, saved, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(saved))
    with pytest.raises(UserError, match=message) as e:
        load_json(path)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_a_damaged_or_missing_saved_config(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"bad\.json: not JSON"):
        load_json(tmp_path / "bad.json")


def test_every_declared_key_exists_and_renamed_ones_lead_to_one():
    for key in [*declared_keys(), "train.phases[0].lr"]:
        check_key(key)
    for old, new in RENAMED.items():
        check_key(new)
        with pytest.raises(UserError, match=f"is now called {new}"):
            check_key(old)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.phases.0.lr", r"no such key; write train\.phases\[0\]\.lr"),
        ("train.phases[0].epoch", r'did you mean "train\.phases\[0\]\.epochs"'),
        ("trian.batch_size", 'did you mean "train.batch_size"'),
        ("evil", 'did you mean "eval"'),
    ],
)
def test_unknown_keys(key, message):
    with pytest.raises(UserError, match=message):
        check_key(key)


def test_paths_of_configs():
    assert config_path("a/b.py:x") == "a/b.py:x"
    assert config_path("runs/a/config.json").endswith(".py:runs/a/config.json")
    for name in example_names():
        assert Path(config_path(name)).is_file()
    with pytest.raises(UserError, match="one of the examples in the package: quick"):
        config_path("runs/a")


def test_public_names():
    assert recjax.config.get_config is base.get_config
    assert callable(recjax.train)
    assert recjax.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = recjax.nothing


def test_the_wheel_has_every_module(tmp_path):
    """The wheel is built without network, by the installed setuptools."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", f"--wheel-dir={tmp_path}", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "invalid command 'bdist_wheel'" in done.stdout + done.stderr:
        pytest.skip("the package wheel is not installed")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("recjax-*.whl")
    names = {
        name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name
    }
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "recjax").rglob("*.py")}
    page = {f"recjax/serving/page/{x}" for x in ("index.html", "page.js", "page.css")}
    assert names == files | page | {"recjax/py.typed"}
