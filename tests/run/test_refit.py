"""A finished run is trained again on all events, with what validation chose."""

import json
import shutil

import pytest

import recjax
from recjax.common.errors import UserError
from recjax.config import base
from recjax.config.refit import get_config
from recjax.config.validate import check_config
from recjax.data.splits import load_data
from tests.conftest import shrink

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def earlier(atomic_dir, tmp_path_factory):
    """The directory of a run that is fused with baselines and keeps its last epoch."""
    config = shrink(base.get_config(), atomic_dir).unlock()
    config.item_tower.sources = ("id", "text")
    config.head.fusion, config.report.save_model = ("transitions", "text"), True
    phase = base.phase("towers", epochs=2, lr=1e-2, keep="last")
    config.train.phases = (phase,)
    workdir = tmp_path_factory.mktemp("earlier") / "run"
    recjax.train(config.lock(), str(workdir))
    return workdir


@pytest.fixture(scope="module")
def refit(earlier, tmp_path_factory):
    """The directory of a run that trains the finished run's model on all events."""
    config = get_config(str(earlier)).unlock()
    config.report.save_model = True
    workdir = tmp_path_factory.mktemp("refit") / "run"
    recjax.train(config.lock(), str(workdir))
    return workdir


def read(folder, name="results.json"):
    return json.loads((folder / name).read_text())


def test_epochs_and_weights_are_those_of_the_run(earlier, refit):
    before = read(earlier)["phases"]["towers"]
    after = read(refit)["phases"]["towers"]
    assert after["epochs"] == after["kept_epoch"] == before["kept_epoch"] > 0
    assert after["fusion"] == before["fusion"]
    assert any(after["fusion"].values())  # zeros would show nothing


def test_every_event_is_trained_on(earlier, refit):
    counts = [recjax.load(x).items["events"].sum() for x in (earlier, refit)]
    data = load_data(recjax.load(earlier).parts.config)
    assert counts[1] == counts[0] + len(data.valid) + len(data.test)
    histories = [recjax.load(x).parts.histories for x in (earlier, refit)]
    assert histories[0].sort("user").equals(histories[1].sort("user"))


def test_metrics_are_said_to_be_in_sample(earlier, refit):
    for name in ("results.md", "log.txt"):
        assert "nothing was held out, so the values say how" in (
            (refit / name).read_text()
        )
        assert "nothing was held out" not in (earlier / name).read_text()
    assert "(nothing was held out)" in (refit / "model/README.md").read_text()
    assert read(refit)["fingerprint"] != read(earlier)["fingerprint"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda results, config: results.update(phases={}), "has no phases"),
        (
            lambda results, config: results["phases"]["towers"].pop("kept_epoch"),
            "has no kept_epoch of phase towers",
        ),
        (
            lambda results, config: results["phases"]["towers"].update(kept_epoch=0),
            "no epoch of this run was kept",
        ),
        (
            lambda results, config: results["phases"]["towers"].pop("fusion"),
            "has no weights of head.fusion",
        ),
        (lambda results, config: config["data"].update(split="fixed"), "split files"),
    ],
)
def test_what_cannot_be_trained_again_is_refused(earlier, tmp_path, damage, message):
    contents = {name: read(earlier, name) for name in ("results.json", "config.json")}
    damage(*contents.values())
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        get_config(str(tmp_path))


def test_a_run_that_is_not_finished_is_refused(earlier, tmp_path):
    shutil.copyfile(earlier / "config.json", tmp_path / "config.json")
    with pytest.raises(UserError, match=r"no finished run \(there is no results.json"):
        get_config(str(tmp_path))
    with pytest.raises(UserError, match="name a finished run"):
        get_config()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train.phases[0].keep": "best"}, "no epoch can be chosen"),
        ({"train.phases[0].patience": 2}, "no epoch can be chosen"),
        ({"head.fusion_weights": (1.0,)}, "set one weight for each"),
        ({"head.fusion": ("auto",)}, "name the baselines in head.fusion"),
        ({"data.cold_items": 0.1}, "data.cold_items: .*; set 0"),
    ],
)
def test_nothing_can_be_chosen_without_validation(earlier, keys, message):
    config = get_config(str(earlier)).unlock()
    check_config(config)
    for key, value in keys.items():
        section, _, last = key.rpartition(".")
        if section == "train.phases[0]":
            config.train.phases[0][last] = value
        else:
            config[section][last] = value
    with pytest.raises(UserError, match=message):
        check_config(config)
