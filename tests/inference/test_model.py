"""A trained model: lists, scores, new items, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest

import recjax
from recjax.common.errors import UserError
from recjax.config import base
from recjax.data.histories import complete_histories
from recjax.data.splits import load_data
from recjax.inference.model import Model
from recjax.inference.parts import ADDED, STATE, UNTRAINED
from recjax.models.heads import SEEN_BIAS
from recjax.models.users import USER_TOWERS, USES_GRAPH
from recjax.run import train
from recjax.serving.live_catalogue import LiveCatalogue, Query
from tests.conftest import shrink, train_ids_model


def as_config(model):
    return model.parts.config


def test_it_ranks_the_test_as_the_run_does(finished, model):
    """The same histories and targets give the ranks in `ranks.parquet`."""
    data = load_data(as_config(model))
    test, ids = data.test, data.item_ids
    found = model.evaluate(
        [ids[test.history(i)] for i in range(len(test))], ids[test.targets_R]
    )
    results = json.loads((finished / "results.json").read_text())["test"]
    for metric in ("hr@5", "ndcg@10", "mrr@10", "auc"):
        assert found[metric]["value"] == pytest.approx(results[metric]["value"])


def test_a_list_is_the_best_unseen_items(model):
    users = model.users[:5]
    lists = model.recommend(users=users, k=4)
    scores = model.score(model.items["id"], users=users)
    for user, score_N in zip(users, scores, strict=True):
        own = lists.filter(pl.col("user") == user)
        assert own["rank"].to_list() == [1, 2, 3, 4]
        score_N = score_N.copy()
        score_N[model.ids.history(user)] = -np.inf
        best = np.argsort(-score_N)[:4]
        assert own["item"].to_list() == model.items["id"].gather(best).to_list()
        np.testing.assert_allclose(own["score"], score_N[best], rtol=1e-5, atol=1e-5)
        assert own["title"].to_list() == model.items["title"].gather(best).to_list()


def test_histories_end_with_the_test_event(model):
    data = load_data(as_config(model))
    for row in range(len(data.test)):
        user = data.user_ids[data.test.users_R[row]]
        want = data.test.sequence(row).tolist()
        assert model.ids.history(user).tolist() == want


@pytest.mark.parametrize("split", ["time", "user", "ratio"])
def test_the_history_of_every_user_is_complete(config, split):
    """Every event of the file is in the history of its user, in order of time."""
    c = config.unlock()
    c.data.split, c.data.split_fractions = split, (0.1, 0.1)
    data = load_data(c.lock())
    events = pl.read_csv(
        f"{c.data.source}/{c.data.source.rpartition('/')[2]}.inter", separator="\t"
    ).rename(lambda name: name.partition(":")[0])
    for user, items in complete_histories(data).items():
        own = events.filter(pl.col("user_id").cast(pl.String) == data.user_ids[user])
        want = own.sort("timestamp", maintain_order=True)["item_id"].cast(pl.String)
        assert data.item_ids[items].tolist() == want.to_list()


def test_a_history_may_be_of_anyone(model):
    """Lists depend on the history alone; unknown items are left out."""
    user = model.users[0]
    ids = model.items["id"].gather(model.ids.history(user)).to_list()
    by_user = model.recommend(users=[user])
    for history in (ids, [*ids[:2], "nowhere", *ids[2:]]):
        found = model.recommend(histories=[history])
        assert found["item"].to_list() == by_user["item"].to_list()
    several = model.recommend(histories=[ids, ids[:1], ids])
    assert several["query"].unique().to_list() == [0, 1, 2]
    first, last = (several.filter(pl.col("query") == i) for i in (0, 2))
    assert first["item"].to_list() == last["item"].to_list()


def test_an_unknown_history_gets_the_popular_items(model):
    found = model.recommend(histories=[[], ["nowhere"]], k=3)
    popular = model.items.sort("events", descending=True, maintain_order=True)[:3]
    assert found["item"].to_list() == 2 * popular["id"].to_list()
    assert set(found["source"]) == {"popularity"}


def test_a_table_of_events_is_read_in_order_of_time(model):
    """A pandas table gives a pandas table back."""
    ids = model.items["id"].to_list()
    rows = {
        "user_id": ["a", "b", "a"],
        "item_id": [ids[0], ids[5], ids[1]],
        "timestamp": [2, 1, 1],
    }
    want = model.recommend(histories=[[ids[1], ids[0]], [ids[5]]], k=3)
    found = model.recommend(histories=pl.DataFrame(rows), k=3)
    by_user = {u: found.filter(pl.col("user") == u)["item"].to_list() for u in "ab"}
    for query, user in enumerate("ab"):
        own = want.filter(pl.col("query") == query)
        assert by_user[user] == own["item"].to_list()
    as_pandas = model.recommend(histories=pd.DataFrame(rows), k=3)
    assert isinstance(as_pandas, pd.DataFrame)
    assert as_pandas["item"].tolist() == found["item"].to_list()


def test_seen_items_and_the_choice_of_items(model):
    user = model.users[0]
    seen = model.items["id"].gather(np.unique(model.ids.history(user))).to_list()
    everything = model.recommend(users=[user], k=100)
    assert len(everything) == len(model.items) - len(seen)
    assert not set(everything["item"]) & set(seen)
    with_seen = model.recommend(users=[user], k=100, exclude_seen=False)
    assert set(with_seen["item"]) == set(model.items["id"])
    unseen = everything["item"].to_list()[3:5]
    found = model.recommend(users=[user], among=[*unseen, *seen])
    assert found["item"].to_list() == unseen


def test_many_queries_are_ranked_as_one_is(model):
    """Batches of other sizes and lists of other lengths give the same lists."""
    ids = model.items["id"].to_list()
    rng = np.random.default_rng(0)
    histories = [rng.choice(ids, rng.integers(1, 9)).tolist() for _ in range(150)]
    together = model.recommend(histories=histories, k=20).partition_by("query")
    for index in (0, 63, 64, 149):
        alone = model.recommend(histories=[histories[index]], k=20)
        assert alone["item"].to_list() == together[index]["item"].to_list()


def test_a_new_item_is_recommended_at_once(finished):
    """It scores as an item with its text but without an id, and survives saving."""
    model = recjax.load(finished)
    before = model.recommend(users=model.users, k=3)
    texts = {"new 1": "three three adventure", "new 2": "one one action"}
    want = model.score(texts=list(texts.values()), users=model.users)
    model.add_items(texts)
    np.testing.assert_allclose(
        model.score(["new 1", "new 2"], users=model.users), want, atol=1e-5
    )
    assert model.items[STATE].to_list()[-2:] == [ADDED, ADDED]
    found = model.recommend(users=model.users, among=texts)
    assert set(found["item"]) == set(texts)
    # The old items keep their scores.
    old = model.recommend(users=model.users, k=3, among=model.items["id"][:-2])
    assert old["item"].to_list() == before["item"].to_list()
    # A new item in a history counts for the model.
    first, second = (
        model.recommend(histories=[history], k=20)
        for history in (["new 1", "i3"], ["i3"])
    )
    assert first["score"].to_list() != second["score"].to_list()


def test_a_new_item_has_the_vector_of_its_text(finished, model):
    """In a model of texts alone it is that of an old item with the same text."""
    text = model.items["text"][4]
    (neighbour,) = model.similar(texts=[text], k=1)["neighbour"]
    vector = model.encode_items([text])[0]
    own = model.parts.params["items/id/vectors/embedding"][4]
    # ids and texts are summed, and a new item has no id vector. Whitening by a tiny
    # catalogue magnifies rounding, by how much depends on the processor.
    np.testing.assert_allclose(
        vector, model.parts.vectors.candidates_NxD[4] - own, atol=1e-3
    )
    assert neighbour in model.items["id"]
    table = pl.DataFrame({"title": ["one two"], "genre": ["drama"]})
    np.testing.assert_array_equal(
        model.encode_items(table), model.encode_items(["one two drama"])
    )


def test_a_new_item_has_the_bias_of_new_items(config, tmp_path):
    """An item that training held out, and the same one added later, score alike."""
    c = config.unlock()
    c.item_tower.sources, c.data.cold_items = ("id", "text"), 0.2
    c.head.name, c.head.bias, c.head.event_bias = "two_tower", True, (1.0, 2.5)
    c.item_tower.init = "zero_shot"  # the id vector of an untrained item is zero
    c.report.save_model, c.train.phases = True, (base.phase("p", epochs=1, lr=1e-2),)
    final = recjax.train(c.lock(), str(tmp_path))
    model = recjax.load(tmp_path)
    new = model.items.filter(pl.col("state") == UNTRAINED)
    chosen = final["phases"]["p"]["event_bias"]["new"]
    assert chosen in (1.0, 2.5)
    rows = [model.items["id"].to_list().index(name) for name in new["id"]]
    biases = model.parts.vectors.bias_N[rows]
    np.testing.assert_allclose(biases, chosen)
    want = model.score(new["id"].to_list(), users=model.users)
    model.add_items({f"again {i}": text for i, text in enumerate(new["text"])})
    added = [f"again {i}" for i in range(len(new))]
    np.testing.assert_allclose(model.score(added, users=model.users), want, atol=1e-4)
    # A trained item that is encoded again keeps the bias of its group.
    item = model.items["events"].to_numpy().argmax()
    text = model.items["text"][int(item)]
    again = model.item_encoder.encode([text], np.array([item]))
    np.testing.assert_allclose(again.bias_N[0], model.parts.vectors.bias_N[item])


def test_items_of_the_history_have_their_bias(config, tmp_path):
    """In a run, in its model and in a service alike."""
    c = config.unlock()
    c.eval.mask_seen, c.head.seen_bias = False, (-2.5,)
    c.report.save_model, c.train.phases = True, (base.phase("p", epochs=1),)
    final = recjax.train(c.lock(), str(tmp_path))
    bias = final["phases"]["p"]["seen_bias"]["seen"]
    assert bias <= -2.5  # doubled if that is better
    model = recjax.load(tmp_path)
    ids = model.items["id"].to_list()
    history, columns = [ids[3], ids[5], ids[3]], np.array([3, 5, 3])
    found = model.score(ids, histories=[history])[0]
    params = model.parts.params | {SEEN_BIAS: np.zeros(1, np.float32)}
    plain = Model(replace(model.parts, params=params))
    want = plain.score(ids, histories=[history])[0].copy()
    want[[3, 5]] += bias
    np.testing.assert_allclose(found, want, atol=1e-5)
    best = model.recommend(histories=[history], k=len(ids), exclude_seen=False)
    np.testing.assert_allclose(best["score"], np.sort(want)[::-1], atol=1e-5)
    live = LiveCatalogue(model, spare=1)
    (listed,) = live.rank([Query(columns, np.array([], int), 16)])
    np.testing.assert_allclose(listed[1], np.sort(want)[::-1][:16], atol=1e-5)
    asked = np.arange(8)
    np.testing.assert_allclose(live.score(columns, asked), want[:8], atol=1e-5)
    data = load_data(as_config(model))
    rows = [data.item_ids[data.test.history(i)] for i in range(len(data.test))]
    again = model.evaluate(rows, data.item_ids[data.test.targets_R], mask_seen=False)
    assert again["ndcg@10"]["value"] == pytest.approx(final["test"]["ndcg@10"]["value"])


@pytest.mark.parametrize("name", USER_TOWERS)
def test_every_user_tower_ranks_as_its_run_does(config, tmp_path, name):
    c = config.unlock()
    c.user_tower.name, c.item_tower.sources = name, ("id", "text")
    c.user_tower.repeats = name == "gru"
    c.user_tower.num_layers = 2
    c.head.name = "two_tower" if name == "mean" else "softmax"
    c.eval.baselines, c.report.save_model = (), True
    if name in USES_GRAPH:
        c.loss.negatives = "all"
    c.train.phases = (base.phase("p", epochs=1, lr=1e-2),)
    final = train.run(c.lock(), str(tmp_path / "run"))
    model = recjax.load(tmp_path / "run")
    data = load_data(c)
    test, ids = data.test, data.item_ids
    found = model.evaluate(
        [ids[test.history(i)] for i in range(len(test))], ids[test.targets_R]
    )
    want = final["test"]
    assert found["auc"]["value"] == pytest.approx(want["auc"]["value"], abs=2e-3)
    model.add_items({"new": "one two drama"})
    assert np.isfinite(model.score(["new"], users=model.users[:2])).all()


def test_mistakes_are_named(model, tmp_path):
    some = model.users[:1]
    for call, message in (
        (lambda: model.recommend(), "give either users or histories"),
        (lambda: model.recommend(users=some, k=0), "k: 0 is not at least 1"),
        (lambda: model.recommend(users=["nobody"]), "no user 'nobody'"),
        (lambda: model.recommend(users=some, among=["x"]), "no item 'x'"),
        (lambda: model.recommend(histories=["abc"]), "'abc' is not a list"),
        (lambda: model.score(["x"], users=some), "no item 'x'"),
        (lambda: model.score(users=some), "give either items or texts"),
        (lambda: model.similar(["x"]), "no item 'x'"),
        (lambda: model.add_items({"i1": "one"}), "'i1' is in the catalogue"),
        (lambda: model.add_items(pl.DataFrame({"x": ["1"]})), "no column 'item_id'"),
        (lambda: model.evaluate([["i1"]], []), "0 targets for 1 histories"),
        (lambda: recjax.load(tmp_path), "is not a model of recjax"),
        (lambda: recjax.load(tmp_path / "no"), "no such directory"),
        (lambda: model.save_pretrained(__file__), "has other files than a model"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_a_model_of_ids_alone(config, tmp_path):
    keys = {"report.keep_histories": False}
    model = train_ids_model(config, tmp_path / "run", **keys)
    assert model.recommend(histories=[["i1", "i2"]], k=3).shape == (3, 6)
    assert not (tmp_path / "run/model/histories.parquet").exists()
    with pytest.raises(UserError, match="has no histories"):
        model.recommend(users="all")
    with pytest.raises(UserError, match="reads ids alone"):
        model.add_items({"new": "text"})


def test_no_model_is_written_if_not_asked_for(config, tmp_path):
    c = config.unlock()
    c.item_tower.sources, c.report.save_model = ("id",), False
    c.train.phases = (base.phase("p", epochs=1, lr=1e-2),)
    c.eval.baselines = ()
    shrink(c, tmp_path)
    train.run(c.lock(), str(tmp_path / "run"))
    assert not (tmp_path / "run/model").exists()
    with pytest.raises(UserError, match="was finished without model/"):
        recjax.load(tmp_path / "run")


def test_one_id_or_text_may_be_given_alone(model):
    user = model.users[0]
    text = "one two drama"
    one = model.score(texts=text, users=user)
    np.testing.assert_array_equal(one, model.score(texts=[text], users=[user]))
    np.testing.assert_array_equal(model.encode_items(text), model.encode_items([text]))
    assert model.similar("i3", k=2).equals(model.similar(["i3"], k=2))
    assert model.similar(texts=text, k=2)["text"].to_list() == [text] * 2
    assert model.score(items="i3", users=user).shape == (1, 1)
    among = model.recommend(histories=[["i1"]], among="i5")
    assert among["item"].to_list() == ["i5"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, frame: m.recommend(users=frame), "users: is a table"),
        (lambda m, frame: m.recommend(histories=[[]], among=frame), "among: is a ta"),
        (lambda m, frame: m.similar(frame), "items: is a table"),
        (lambda m, frame: m.add_items(["a"]), "a dictionary of ids and texts"),
        (lambda m, frame: m.add_items({"b": "one", "a": None}), "'a' has no text"),
        (lambda m, frame: m.add_items({"a": " "}), "'a' has no text"),
    ],
)
def test_tables_and_empty_texts_are_named(model, call, message):
    with pytest.raises(UserError, match=message):
        call(model, pl.DataFrame({"x": ["u1"]}))


def test_a_failed_upload_is_one_line(model, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fail)
    with pytest.raises(UserError, match=r"me/x: cannot be uploaded \(Name or serv"):
        model.push_to_hub("me/x")
