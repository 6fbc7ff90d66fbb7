"""Every config builds, is locked, and takes steps on synthetic data."""

import importlib
from pathlib import Path

import numpy as np
import optuna
import pytest

from configs import base
from configs.ablations import reference
from configs.ablations.reference import DATA_SETS, read_points
from experiments.sweeping.load import load_function, resolve
from recjax.run import train
from recjax.run.validate_config import check_config
from tests.conftest import shrink

NAMES = sorted(
    p.stem
    for p in Path("configs").glob("*.py")
    if p.stem not in ("__init__", "base", "data_sets")
)
ABLATIONS = {
    path.stem: importlib.import_module(".".join(path.with_suffix("").parts))
    for path in sorted(Path("configs").rglob("*.py"))
    if "def sweep(" in path.read_text()
}
POINTS = [
    (name, point)
    for name, module in ABLATIONS.items()
    for point in read_points(module.sweep)
] + [("freezing", "top2@amazon_industrial")]


@pytest.mark.parametrize("name", NAMES)
def test_config_runs(name, atomic_dir, six_layers, tmp_path):
    c = importlib.import_module(f"configs.{name}").get_config()
    assert c.is_locked
    with pytest.raises(AttributeError):
        c.train.epochs = 3
    final = train.run(shrink(c, atomic_dir, six_layers), str(tmp_path))
    assert np.isfinite(final["test"]["ndcg@10"]["value"])
    if name == "quickstart":
        text = (tmp_path / "results.md").read_text()
        assert "after top (1 epochs)" in text


@pytest.mark.parametrize(("name", "point"), POINTS)
def test_point_runs(name, point, atomic_dir, six_layers, tmp_path):
    c = ABLATIONS[name].get_config(point)
    assert c.is_locked
    final = train.run(shrink(c, atomic_dir, six_layers), str(tmp_path))
    assert np.isfinite(final["test"]["ndcg@10"]["value"])
    trained = [phase["trainable"] for phase in final["phases"].values()]
    assert final["params"]["trainable"] == max(trained)


@pytest.mark.parametrize("name", ABLATIONS)
def test_points_differ_and_the_default_is_the_reference(name):
    module = ABLATIONS[name]
    points = list(read_points(module.sweep))
    several = "make(" in Path(module.__file__).read_text()
    for at in [f"@{data_set}" for data_set in DATA_SETS] if several else [""]:
        built = [module.get_config(f"{p}{at}").to_json() for p in points]
        assert len(set(built)) == len(built)
    assert module.get_config().to_json() == module.get_config(points[0]).to_json()
    with pytest.raises(ValueError, match="no point 'none'; there are"):
        module.get_config("none")
    if several:
        with pytest.raises(ValueError, match="no data set 'mars'; there are ml100k"):
            module.get_config(f"{points[0]}@mars")


def test_a_row_may_say_what_the_data_set_would():
    """Of the phase that trains the encoder; what it leaves open, the data set says."""

    def sweep(add):
        tune = base.phase(reference.TUNE, **{**reference.TUNING, "batch_size": 64})
        add("small", {"train.phases": (tune,)})

    c = reference.make("small@amazon_industrial", sweep, tuned=True)
    (tune,) = c.train.phases
    assert (tune.batch_size, tune.negatives) == (64, "stale")


def test_points_of_one_name_are_refused():
    def sweep(add):
        add("a", {})
        add("a", {"seed": 1})

    with pytest.raises(ValueError, match="two points are called 'a'"):
        read_points(sweep)


@pytest.mark.parametrize("name", ["../up", "/root", "a/b", "a@b", "", ".hidden", 64])
def test_what_is_no_name_of_a_point(name):
    with pytest.raises(ValueError, match="is no name of a point"):
        read_points(lambda add: add(name, {}))


def test_a_loop_may_change_what_it_adds():
    def sweep(add):
        changes = {}
        for width in (32, 64):
            changes["item_tower.width"] = width
            add(f"width = {width}", changes)

    assert [x["item_tower.width"] for x in read_points(sweep).values()] == [32, 64]


def test_base_declares_every_key_with_a_comment():
    lines = Path("configs/base.py").read_text().splitlines()
    keys = [
        x
        for x in lines
        if x.startswith("    c.") and "ConfigDict()" not in x and " = " in x
    ]
    bare = [x for x in keys if "#" not in x]
    assert not bare


def test_phases_refuse_unknown_keys():
    with pytest.raises((AttributeError, KeyError)):
        base.phase("towers", epoch=1)


@pytest.mark.parametrize("path", sorted(Path("configs/searches").glob("[a-z]*.py")))
def test_a_search_draws_what_the_config_has(path):
    space = load_function(str(path), "search")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        changes = space(study.ask())
        flags = [f"--config.{key}={value}" for key, value in changes.items()]
        check_config(resolve([f"--config={path}", *flags]))
