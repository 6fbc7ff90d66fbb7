"""Learning from the events of a service: data, comparison, promotion, rollback."""

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import recjax
from recjax import command
from recjax.common.errors import UserError
from recjax.config import base
from recjax.config.validate import check_config
from recjax.feedback import __main__ as program
from recjax.feedback.dataset import dated_histories, read_feedback, write_dataset
from recjax.feedback.learn import Settings, feedback_config, learn
from recjax.inference.files import MODEL
from recjax.inference.model import Model
from recjax.inference.parts import CURSOR
from recjax.serving.service import make_event
from recjax.serving.sqlite_store import SqliteStore
from recjax.serving.store import StoredItem


@pytest.fixture
def place(finished, tmp_path):
    """A copy of a run directory with its model alone."""
    folder = tmp_path / "shop"
    folder.mkdir()
    shutil.copytree(finished / MODEL, folder / MODEL)
    return folder


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "events.sqlite")
    yield store
    store.close()


def fill(store, number=200):
    """Users who always choose the item after the last one."""
    rng = np.random.default_rng(0)
    last = {f"v{i}": int(rng.integers(25)) for i in range(20)}
    for turn in range(number):
        user = f"v{turn % 20}"
        last[user] = (last[user] + 1) % 25
        store.add(make_event(user, [f"i{last[user]}"], "interaction")).result()


def test_the_data_are_histories_and_then_events(place, store, tmp_path):
    model = recjax.load(place)
    user = model.users[0]
    before = model.ids.history_ids(user)
    store.add(make_event(user, ["i3", "unknown"], "interaction")).result()
    store.add(make_event("new user", ["i5"], "interaction")).result()
    store.add(make_event("new user", ["i7"], "interaction")).result()
    store.add(make_event("new user", ["i5"], "retraction")).result()
    store.put_items([StoredItem("n1", "one two drama", "One Two", "added")]).result()
    feedback = read_feedback(model, store)
    assert (len(feedback.events), feedback.last) == (4, 4)
    histories = dated_histories(model, feedback)
    assert write_dataset(model, histories, tmp_path) == 2
    table = pl.read_parquet(tmp_path / "feedback.inter.parquet").sort("time")
    own = table.filter(pl.col("user") == user)["item_id"].to_list()
    assert own == [*before, "i3"]
    assert table.filter(pl.col("user") == "new user")["item_id"].to_list() == ["i7"]
    assert table["item_id"].to_list()[-2:] == ["i3", "i7"]


def test_fusion_weights_are_chosen_again_after_training_on_all_events(
    place, store, tmp_path
):
    """Those of such a model are one per baseline, not candidates for each."""
    model = recjax.load(place)
    config = model.parts.config.copy_and_resolve_references().unlock()
    config.data.split, config.head.fusion_weights = "none", (3.0, 0.5)
    model = Model(replace(model.parts, config=config.lock()))
    store.add(make_event("new user", ["i3", "i5"], "interaction")).result()
    histories = dated_histories(model, read_feedback(model, store))
    new = write_dataset(model, histories, tmp_path)
    found = feedback_config(model, place / MODEL, tmp_path, new, Settings())
    assert tuple(found.head.fusion) == tuple(config.head.fusion)
    assert found.head.fusion_weights == base.get_config().head.fusion_weights
    check_config(found)


def test_a_promoted_model_reads_the_same_tables(place, store, tmp_path):
    """It was trained on the events of the store and finished texts."""
    fill(store)
    settings = Settings(epochs=1, lr=0.0, min_events=50)  # as good as before
    before = recjax.load(place)
    assert learn(str(place), store, tmp_path / "work", settings).promoted
    after = recjax.load(place)
    row = {"item_id": ["n1"], "title": ["one two"], "genre": ["drama"]}
    for model in (before, after):
        model.add_items(pl.DataFrame(row))
        assert model.items["text"][-1] == "one two drama"
    events = {"user_id": ["a", "a"], "item_id": ["i1", "i2"], "timestamp": [1, 2]}
    assert after.recommend(histories=pl.DataFrame(events), k=3)["user"][0] == "a"
    about = [model.parts.about["pretrained"] for model in (before, after)]
    assert about[0] == about[1] is not None


def test_it_learns_what_users_do_now(place, store, tmp_path):
    """The candidate is better on the newest events, and becomes the model."""
    fill(store)
    settings = Settings(epochs=30, lr=1e-2, min_events=50)
    before = recjax.load(place)
    outcome = learn(str(place), store, tmp_path / "work", settings)
    assert outcome.events == 200
    assert outcome.candidate > outcome.incumbent
    assert outcome.difference["value"] == pytest.approx(
        outcome.candidate - outcome.incumbent
    )
    assert outcome.promoted
    after = recjax.load(place)
    assert after.parts.about[CURSOR] == 200
    assert len(after.users) == len(before.users) + 20
    assert after.ids.history_ids("v3")[-1] == store.history("v3").result()[-1].items[0]
    # Nothing is new since then.
    assert learn(str(place), store, tmp_path / "again", settings) is None
    # A user's list follows the habit that the old model did not know.
    assert after.items.equals(before.items) or len(after.items) >= len(before.items)


def test_a_worse_candidate_is_not_promoted(place, store, tmp_path):
    fill(store)
    settings = Settings(epochs=1, lr=10.0, min_events=50, metric="auc")
    with pytest.raises((UserError, KeyError, ValueError)):
        learn(str(place), store, tmp_path / "a", settings)  # not a metric of ranks
    settings = settings._replace(metric="mrr@10")
    model = recjax.load(place)
    outcome = learn(str(place), store, tmp_path / "b", settings)
    if outcome.difference["value"] < 0:
        assert outcome.promoted is None
        assert not (place / MODEL).is_symlink()
        assert recjax.load(place).users == model.users


def test_too_few_events_are_left_for_later(place, store, tmp_path):
    fill(store, 10)
    assert learn(str(place), store, tmp_path / "work", Settings()) is None


def test_the_command(place, store, tmp_path, capsys, monkeypatch):
    def exit_soon(code):
        raise SystemExit(code)

    monkeypatch.setattr(command, "exit_soon", exit_soon)
    monkeypatch.setattr(command, "keep_console", lambda **_: None)
    monkeypatch.setattr(command, "keep_memory", lambda: None)

    def call(*options):
        with pytest.raises(SystemExit) as e:
            program.main([f"--model={place}", *options])
        return e.value.code, capsys.readouterr()

    events = f"--events={store.path}"
    code, output = call(events)
    assert code == 0
    assert "fewer than 100 new events" in output.out
    fill(store, 120)
    code, output = call(events, "--epochs=20", "--lr=0.01")
    assert code == 0, output.err
    assert "120 new events; ndcg@10 on the newest" in output.out
    assert "the run above is not kept; --workdir=DIR keeps it" in output.out
    if "promoted: " in output.out:
        code, output = call("--rollback")
        assert code == 0
        assert recjax.load(place).parts.about.get(CURSOR) is None
    for options, message in (
        ((), "--events: is required"),
        ((events, "--epochs=0"), "--epochs: 0 is not at least 1"),
        ((events, "--fraction=2"), "--fraction: 2.0 is not between"),
        (("--events=/proc",), "--events: /proc: is a directory"),
    ):
        code, output = call(*options)
        assert code == 2
        (line,) = output.err.splitlines()
        assert message in line


def test_a_model_that_reads_times_is_refused(timed, store, tmp_path):
    with pytest.raises(UserError, match=r"user_tower\.time cannot learn"):
        learn(str(timed), store, tmp_path / "work", Settings())
