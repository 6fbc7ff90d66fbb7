"""Model, store and catalogue agree: cursors, reloads, hidden items, changed texts."""

import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import recjax
from recjax.common.errors import UserError
from recjax.feedback.dataset import read_feedback, with_stored_items
from recjax.inference.item_encoder import NEW
from recjax.inference.model import Model
from recjax.inference.parts import CURSOR, STORE
from recjax.serving import live_catalogue
from recjax.serving.cursor import read_cursor
from recjax.serving.engine import Engine, ListRequest
from recjax.serving.live_catalogue import LiveCatalogue
from recjax.serving.service import make_event
from recjax.serving.sqlite_store import SqliteStore
from recjax.serving.store import StoredItem
from tests.serving.test_service import ids, send, start

pytest.importorskip("fastapi")


@pytest.fixture
def sqlite(tmp_path):
    store = SqliteStore(tmp_path / "events.sqlite")
    yield store
    store.close()


def with_about(model, **entries):
    return Model(replace(model.parts, about={**model.parts.about, **entries}))


def cursor(sequence, store):
    return {CURSOR: sequence, STORE: store.identity().result()}


def scores(client, *names):
    body = {"history": ["i1", "i2"], "items": [{"id": name} for name in names]}
    items = client.post("/rank", json=body).json()["items"]
    return {item["id"]: item["score"] for item in items}


def test_a_cursor_belongs_to_one_store(model, sqlite, tmp_path):
    """Events of another store are new, whatever their sequences."""
    for number in range(3):
        sqlite.add(make_event("u", [f"i{number}"], "interaction")).result()
    learned = with_about(model, **cursor(2, sqlite))
    assert read_cursor(learned, sqlite) == 2
    other = SqliteStore(tmp_path / "other.sqlite")
    assert read_cursor(learned, other) == 0
    other.close()
    learned.save_pretrained(tmp_path / "learned")
    with start(tmp_path / "learned", tmp_path / "fresh.sqlite") as client:
        assert send(client, "somebody", "i1", "i2") == 1
        answer = client.get("/recommend/somebody").json()
    assert (answer["last_event"], answer["source"]) == (1, "model")


def test_a_store_that_lost_events_is_refused(model, sqlite, tmp_path):
    learned = with_about(model, **cursor(5, sqlite))
    with pytest.raises(UserError, match=r"has 0 events.*learned from 5 of them"):
        read_cursor(learned, sqlite)
    # A model of an earlier version does not name its store.
    older = with_about(model, **{CURSOR: 0})
    assert read_cursor(older, sqlite) == 0
    with pytest.raises(UserError, match="older copy"):
        read_cursor(with_about(model, **{CURSOR: 5}), sqlite)


def test_changes_wait_for_the_end_of_a_reload(finished, tmp_path, monkeypatch):
    """An item that is hidden during a reload never appears after the answer."""
    with start(finished, tmp_path / "e.sqlite") as client:
        service = client.app.state.service
        apply, threads, waiting = service._apply_stored, [], []

        def apply_and_hide(live):
            apply(live)
            if live is not service.live and not threads and service._changes.locked():
                hide = {"json": {"hidden": True}}
                thread = threading.Thread(
                    target=client.patch, args=("/items/i3",), kwargs=hide
                )
                thread.start()
                threads.append(thread)
                time.sleep(0.3)
                waiting.append(thread.is_alive())

        monkeypatch.setattr(service, "_apply_stored", apply_and_hide)
        client.post("/reload", json={"model": str(finished)})
        (thread,) = threads
        thread.join()
        assert waiting == [True]
        assert "i3" not in ids(client.get("/items/i1/neighbors?k=60"))
        assert "i3" not in [x["id"] for x in client.get("/items?k=100").json()["items"]]


def test_changes_while_a_model_loads_are_in_the_new_catalogue(
    finished, tmp_path, monkeypatch
):
    with start(finished, tmp_path / "e.sqlite") as client:
        service = client.app.state.service
        load = service._load

        def change_then(name):
            found = load(name)
            client.patch("/items/i3", json={"hidden": True})
            new = {"id": "n", "text": "three three action"}
            client.post("/items", json={"items": [new]})
            return found

        monkeypatch.setattr(service, "_load", change_then)
        replace_ = service.engine.replace

        def check(live, version):
            assert live.columns["i3"] in live.hidden
            assert "n" in live.columns
            return replace_(live, version)

        monkeypatch.setattr(service.engine, "replace", check)
        answer = client.post("/reload", json={"model": str(finished)})
        assert answer.status_code == 200


def test_the_same_text_changes_nothing_but_the_title(finished, model, tmp_path):
    """What the model learned about the item stays."""
    text = model.items["text"][5]
    with start(finished, tmp_path / "e.sqlite") as client:
        before = scores(client, "i5", "i6")
        item = {"id": "i5", "text": text, "title": "T"}
        client.post("/items", json={"items": [item]})
        assert scores(client, "i5", "i6") == before
        found = client.get("/items?q=t&k=100").json()["items"]
        assert {"id": "i5", "title": "T"} in found
    # Nor at the next start.
    with start(finished, tmp_path / "e.sqlite") as client:
        assert scores(client, "i5", "i6") == before


def test_a_changed_text_keeps_what_was_learned_about_the_id(model):
    row = 5
    text, encoder = model.items["text"][row], model.item_encoder
    known = encoder.encode([text, text], np.array([row, NEW]))
    want = model.parts.vectors
    # The text of a whitened tiny encoder is exact to four digits only.
    assert known.candidates_NxD[0] == pytest.approx(want.candidates_NxD[row], abs=1e-3)
    assert known.bias_N[0] == pytest.approx(want.bias_N[row], abs=1e-6)
    assert known.bias_N[1] == pytest.approx(want.bias_N.mean(), abs=1e-6)
    assert not np.allclose(known.candidates_NxD[1], want.candidates_NxD[row], atol=0.1)


def test_a_hidden_item_stays_hidden_when_its_text_changes(finished, tmp_path):
    item = {"id": "i5", "text": "three three action"}
    for _ in range(2):  # also after a restart
        with start(finished, tmp_path / "e.sqlite") as client:
            client.patch("/items/i5", json={"hidden": True})
            client.post("/items", json={"items": [item]})
            assert "i5" not in ids(client.get("/items/i1/neighbors?k=60"))
            item = {"id": "i5", "text": "one one drama"}
    with start(finished, tmp_path / "e.sqlite") as client:
        assert "i5" not in ids(client.get("/items/i1/neighbors?k=60"))
        client.patch("/items/i5", json={"hidden": False})
        assert "i5" in ids(client.get("/items/i1/neighbors?k=60"))


def test_feedback_learns_from_the_items_that_are_shown(model, sqlite):
    """New texts count, deleted items are left out; hidden ones may be shown again."""
    sqlite.put_items(
        [
            StoredItem("i5", "three three action", "Five", "added"),
            StoredItem("n1", "one two drama", "One", "added"),
            StoredItem("n2", "one two drama", "Two", "hidden"),
            StoredItem("n3", "one two drama", "Three", "deleted"),
        ]
    ).result()
    changed = with_stored_items(model, read_feedback(model, sqlite).items)
    assert changed.items["id"].to_list() == [*model.items["id"], "n1", "n2"]
    row = model.items["id"].to_list().index("i5")
    assert changed.items["text"][row] == "three three action"
    assert changed.items["title"][row] == "Five"
    want = model.item_encoder.encode(["three three action"], np.array([row]))
    vectors = changed.parts.vectors.candidates_NxD
    assert vectors[row] == pytest.approx(want.candidates_NxD[0], abs=1e-6)
    others = np.delete(np.arange(len(model.items)), row)
    assert np.array_equal(vectors[others], model.parts.vectors.candidates_NxD[others])


def test_a_service_ranks_as_the_model_with_the_items_of_the_store(
    finished, model, tmp_path
):
    text = model.items["text"][7]
    items = [
        StoredItem("i7", text, "Seven", "added"),
        StoredItem("i5", "three three action", "Five", "added"),
        StoredItem("n1", "one two drama", "One", "added"),
    ]
    store = SqliteStore(tmp_path / "e.sqlite")
    store.put_items(items).result()
    same = with_stored_items(model, items)
    names = ["i7", "i5", "n1", "i1"]
    want = same.score(items=names, histories=[["i1", "i2"]])[0]
    store.close()
    with start(finished, tmp_path / "e.sqlite") as client:
        found = scores(client, *names)
    assert [found[name] for name in names] == pytest.approx(want.tolist(), rel=1e-3)


def list_of(model, monkeypatch, sizes, **request):
    monkeypatch.setattr(live_catalogue, "EXCLUDED_SIZES", sizes)
    engine = Engine(LiveCatalogue(model, spare=8), "version")
    found = engine.recommend(ListRequest(**request, k=25)).result()
    engine.close()
    return {item.id for item in found.items}


def test_no_excluded_item_appears_however_many_there_are(model, monkeypatch):
    everything = model.items["id"].to_list()
    request = {"history": ["i1"] * 9, "excluded": everything[3:]}
    found = list_of(model, monkeypatch, (4, 1000), **request)
    assert found == {*everything[:3]} - {"i1"}


def test_of_too_many_excluded_items_the_oldest_are_dropped(model, monkeypatch):
    history = ["i1", "i2", "i3", "i4", "i5", "i6", "i1"]
    found = list_of(model, monkeypatch, (4,), history=history, excluded=["i9"])
    assert found == {*model.items["id"]} - {"i9", "i1", "i6", "i5"}


def test_an_item_that_cannot_be_encoded_is_not_stored(finished, tmp_path, monkeypatch):
    with start(finished, tmp_path / "e.sqlite") as client:
        service = client.app.state.service

        def fail(*_):
            raise UserError("a text cannot be encoded")

        monkeypatch.setattr(service.live.model.item_encoder, "encode", fail)
        response = client.post("/items", json={"items": [{"id": "n", "text": "one"}]})
        assert response.status_code == 409
        assert service.store.items().result() == []


def test_a_promotion_during_a_start_mixes_no_versions(
    finished, model, tmp_path, monkeypatch
):
    """The link is read once."""
    from recjax.serving import service as module

    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "link"
    model.save_pretrained(old)
    with_about(model, note="new").save_pretrained(new)
    link.symlink_to(old)
    check = module.Model.from_pretrained

    def promote_and_load(folder):
        link.unlink()
        link.symlink_to(new)
        return check(folder)

    monkeypatch.setattr(module.Model, "from_pretrained", promote_and_load)
    with start(link, tmp_path / "e.sqlite") as client:
        about = client.app.state.service.live.model.parts.about
        assert "note" not in about
        assert client.get("/model").json()["model"] == module.model_version(old)


def test_a_store_is_complete_after_the_end(finished, tmp_path):
    """Its file can be copied alone."""
    with start(finished, tmp_path / "e.sqlite") as client:
        send(client, "somebody", "i1")
    shutil.copy(tmp_path / "e.sqlite", tmp_path / "copy.sqlite")
    copy = SqliteStore(tmp_path / "copy.sqlite")
    assert [event.user for event in copy.events(0, 10).result()] == ["somebody"]
    copy.close()


def test_an_empty_history_is_not_that_of_the_first_item(finished, model):
    """Padding has no vector, whichever item it is filled with."""
    empty, unknown, first = model.score(
        items=["i1", "i2", "i3"], histories=[[], ["nobody"], [model.items["id"][0]]]
    )
    assert empty.tolist() == unknown.tolist()
    assert not np.allclose(empty, first, atol=1e-3)
    order = np.roll(np.arange(len(model.items)), 1)
    vectors = model.parts.vectors
    moved = replace(vectors, history_NxD=vectors.history_NxD[order])
    again = recjax.Model(replace(model.parts, vectors=moved))
    found = again.score(items=["i1", "i2", "i3"], histories=[[]])
    assert found[0] == pytest.approx(empty, abs=1e-5)
