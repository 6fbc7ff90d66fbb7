"""The service over HTTP: read your writes, new items, reloads, limits, mistakes."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import recjax
from recjax.inference.files import MANIFEST
from recjax.serving.live_programs import count_compilations
from recjax.serving.open_store import open_store
from recjax.serving.sqlite_store import SqliteStore
from recjax.serving.store import NewEvent, StoreError
from tests.synthetic import WORDS

testclient = pytest.importorskip("fastapi.testclient")


def start(folder, path, **options):
    from recjax.serving.app import make_app
    from recjax.serving.metrics import Metrics
    from recjax.serving.service import Service

    metrics = Metrics()
    store = open_store(str(path), "--store")
    service = Service(str(folder), store, spare=8, report=metrics.batch)
    app = make_app(service, metrics, **options)
    return testclient.TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def client(finished, tmp_path):
    with start(finished, tmp_path / "events.sqlite") as client:
        yield client
    client.app.state.service.close()


@pytest.fixture
def stored(finished, store):
    """A client of a service with either store."""
    with start(finished, store) as client:
        yield client
    client.app.state.service.close()


def ids(response):
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


def send(client, user, *items, **more):
    body = {"user": user, "items": [{"id": item} for item in items], **more}
    response = client.post("/feedback", json=body)
    assert response.status_code == 200, response.text
    return response.json()["sequence"]


def test_lists_are_those_of_the_model(client, model):
    for user in model.users[:5]:
        found = client.get(f"/recommend/{user}?k=5")
        assert ids(found) == model.recommend(users=[user], k=5)["item"].to_list()
        assert found.json()["source"] == "model"
    body = {"history": ["i1", "i2", "nowhere"], "k": 5}
    want = model.recommend(histories=[["i1", "i2"]], k=5)
    found = client.post("/recommend", json=body)
    assert ids(found) == want["item"].to_list()
    scores = [item["score"] for item in found.json()["items"]]
    assert scores == pytest.approx(want["score"].to_list(), abs=1e-5)
    excluded = ids(client.post("/recommend", json={**body, "exclude": ids(found)[:2]}))
    assert not set(excluded) & set(ids(found)[:2])


def test_a_list_reflects_every_acknowledged_event(stored, model):
    """The event's item is in no later list, and the history is one longer."""
    user, seen = "someone new", []
    assert stored.get(f"/recommend/{user}").json()["source"] == "popularity"
    for item in ("i3", "i7", "i1", "i9"):
        sequence = send(stored, user, item)
        seen.append(item)
        found = stored.get(f"/recommend/{user}?k=25")
        assert found.json()["last_event"] == sequence
        want = model.recommend(histories=[seen], k=25)["item"].to_list()
        assert ids(found) == want


def test_no_list_is_stale_under_load(stored):
    """Eight clients, each with users of their own, and no list without the event."""

    def cycles(number):
        stale = 0
        for turn in range(20):
            user = f"user {number} {turn % 3}"
            item = f"i{(turn * 7 + number) % 25}"
            sequence = send(stored, user, item)
            found = stored.get(f"/recommend/{user}?k=20")
            stale += item in ids(found) or found.json()["last_event"] < sequence
        return stale

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(cycles, range(8))) == 0


def test_an_event_counts_once_and_can_be_retracted(stored, model):
    first = send(stored, "u", "i3", id="a")
    assert send(stored, "u", "i3", id="a") == first
    send(stored, "u", "i4")
    send(stored, "u", "i3", event="retraction")
    want = model.recommend(histories=[["i4"]], k=5)["item"].to_list()
    assert ids(stored.get("/recommend/u?k=5")) == want


def test_events_survive_the_service(finished, store):
    for turn in range(2):
        with start(finished, store) as client:
            if not turn:
                send(client, "u", "i3", "i5")
                body = {"items": [{"id": "new", "text": "one two drama"}]}
                assert client.post("/items", json=body).status_code == 200
                assert client.delete("/items/i9").status_code == 200
            found = ids(client.get("/recommend/u?k=30"))
            assert "new" in found
            assert "i9" not in found
            assert not {"i3", "i5"} & set(found)
        client.app.state.service.close()


def test_a_new_item_is_recommended_at_once(stored, finished):
    texts = {"n1": "one two drama", "n2": "three three action"}
    body = {"items": [{"id": name, "text": text} for name, text in texts.items()]}
    assert stored.post("/items", json=body).json() == {"added": 2}
    model = recjax.load(finished)
    model.add_items(texts)
    history = ["i1", "n1"]
    want = model.recommend(histories=[history], k=30)
    found = stored.post("/recommend", json={"history": history, "k": 30})
    assert ids(found) == want["item"].to_list()
    assert "n2" in ids(found)
    near = ids(stored.get("/items/n1/neighbors?k=3"))
    assert near == model.similar(["n1"], k=3)["neighbour"].to_list()
    assert {x["id"] for x in stored.get("/items?q=three action").json()["items"]} == {
        "n2"
    }


def test_many_new_items_are_encoded_in_parts(stored, monkeypatch):
    """Lists are made between the parts; the last text of an item counts."""
    engine, sizes = stored.app.state.service.engine, []
    encode = engine.encode_items
    monkeypatch.setattr(
        engine, "encode_items", lambda items: sizes.append(len(items)) or encode(items)
    )
    items = [{"id": f"n{i}", "text": f"one {WORDS[i % 10]}"} for i in range(37)]
    items += [{"id": name, "text": "three three action"} for name in ("n0", "copy")]
    assert stored.post("/items", json={"items": items}).json() == {"added": 38}
    assert sizes == [32, 6]
    (nearest,) = stored.get("/items/n0/neighbors?k=1").json()["items"]
    assert nearest["id"] == "copy"
    assert nearest["score"] == pytest.approx(1, abs=1e-5)


def test_ids_may_have_slashes_and_spaces(stored):
    name, path = "a/b c?#%", "a%2Fb%20c%3F%23%25"
    body = {"user": name, "items": [{"id": "i3"}]}
    assert stored.post("/feedback", json=body).status_code == 200
    assert stored.get(f"/recommend/{path}?k=5").json()["source"] == "model"
    item = {"id": name, "text": "one two drama"}
    assert stored.post("/items", json={"items": [item]}).status_code == 200
    assert len(ids(stored.get(f"/items/{path}/neighbors?k=3"))) == 3
    assert name in ids(stored.get("/items/i1/neighbors?k=25"))
    assert stored.patch(f"/items/{path}", json={"hidden": True}).json()["id"] == name
    assert stored.delete(f"/items/{path}").json() == {"id": name, "deleted": True}
    assert name not in ids(stored.get("/items/i1/neighbors?k=25"))


def test_a_deletion_between_two_parts_stays(stored, monkeypatch):
    """Store and catalogue agree, whichever comes first."""
    service, calls = stored.app.state.service, []
    put = service._put_part

    async def put_and_delete(part):
        await put(part)
        if not calls:
            calls.append(1)
            await service._set_state("n0", "deleted")

    monkeypatch.setattr(service, "_put_part", put_and_delete)
    items = [{"id": f"n{i}", "text": "one two" + " a" * i} for i in range(36)]
    assert stored.post("/items", json={"items": items}).status_code == 200
    assert "n0" not in ids(stored.get("/items/n1/neighbors?k=60"))
    assert "n35" in ids(stored.get("/items/n1/neighbors?k=60"))


def test_a_hidden_item_keeps_its_new_text(finished, store):
    body = {"items": [{"id": "i5", "text": "three three action", "title": "New"}]}
    for turn in range(2):
        with start(finished, store) as client:
            if not turn:
                client.post("/items", json=body)
                client.patch("/items/i5", json={"hidden": True})
            else:
                client.patch("/items/i5", json={"hidden": False})
                new = {"items": [{"id": "copy", "text": "three three action"}]}
                client.post("/items", json=new)
                (near,) = client.get("/items/copy/neighbors?k=1").json()["items"]
                assert (near["id"], near["title"]) == ("i5", "New")
                assert near["score"] > 0.9  # i5 has an id vector too
        client.app.state.service.close()


def test_a_title_that_was_the_text_follows_it(stored):
    for text in ("red chair", "blue sofa"):
        stored.post("/items", json={"items": [{"id": "n", "text": text}]})
        (found,) = stored.get(f"/items?q={text.split()[0]}").json()["items"]
        assert found == {"id": "n", "title": text}


def test_the_description_says_whether_events_were_held_out(client):
    assert client.get("/model").json()["held_out"] is True


def test_a_deleted_item_is_gone_until_it_is_added_again(stored):
    assert stored.delete("/items/i5").status_code == 200
    assert stored.patch("/items/i5", json={"hidden": False}).status_code == 404
    item = {"id": "i5", "text": "one six adventure"}
    assert stored.post("/items", json={"items": [item]}).status_code == 200
    (found,) = stored.get("/items?q=one+six").json()["items"]
    assert found == {"id": "i5", "title": "one six"}  # the title stays


def test_hidden_items_never_appear(stored):
    history = {"history": ["i1"], "k": 25}
    first = ids(stored.post("/recommend", json=history))[0]
    assert stored.patch(f"/items/{first}", json={"hidden": True}).status_code == 200
    assert first not in ids(stored.post("/recommend", json=history))
    assert first not in ids(stored.get("/recommend/nobody?k=25"))
    assert first not in ids(stored.get("/items?k=100"))
    near = ids(stored.get("/items/i1/neighbors?k=25"))
    assert first not in near
    assert stored.patch(f"/items/{first}", json={"hidden": False}).status_code == 200
    assert ids(stored.post("/recommend", json=history))[0] == first


def test_some_items_are_ranked(client, model):
    """In the order of the whole catalogue's scores; hidden ones are left out."""
    history, names = ["i1", "i2"], [f"i{i}" for i in range(3, 20)]
    body = {"history": history, "items": [{"id": name} for name in names]}
    found = client.post("/rank", json=body)
    scores = model.score(names, histories=[history])[0]
    order = np.argsort(-scores, kind="stable")
    assert ids(found) == [names[i] for i in order]
    got = [item["score"] for item in found.json()["items"]]
    assert got == pytest.approx(scores[order].tolist(), abs=1e-5)
    client.delete("/items/i5")
    assert "i5" not in ids(client.post("/rank", json=body))
    new = {"user": "nobody", "items": body["items"][:3]}
    found = client.post("/rank", json=new).json()
    assert (found["source"], len(found["items"])) == ("popularity", 2)
    unknown = {**body, "history": ["nowhere"]}
    assert client.post("/rank", json=unknown).json()["source"] == "popularity"
    wrong = {**body, "items": [{"id": "nowhere"}]}
    assert client.post("/rank", json=wrong).status_code == 404


def test_several_lists_in_one_request(client):
    instances = [{"history": ["i1"], "k": 3}, {"user": "u0", "k": 2}]
    found = client.post("/v1/models/recjax:predict", json={"instances": instances})
    lists = [client.post("/recommend", json=each) for each in instances]
    got = [[item["id"] for item in x["items"]] for x in found.json()["predictions"]]
    assert got == [ids(each) for each in lists]


def test_nothing_is_compiled_after_the_start(client):
    before = count_compilations()
    rng = np.random.default_rng(0)
    for size in (1, 3, 12):
        history = [f"i{i}" for i in rng.integers(0, 25, size)]
        body = {"history": history, "k": int(rng.integers(1, 120)), "explain": True}
        assert client.post("/recommend", json=body).status_code == 200
    many = [f"i{i % 25}" for i in range(1000)]
    client.post("/recommend", json={"history": ["i1"], "exclude": many})
    client.post("/items", json={"items": [{"id": "n", "text": "one two"}]})
    client.get("/items/n/neighbors?k=100")
    client.patch("/items/n", json={"hidden": True})
    assert count_compilations() == before


def test_explanations_name_items_of_the_history(client, model):
    history = ["i1", "i2", "i3"]
    body = {"history": history, "k": 3, "explain": True}
    for item in client.post("/recommend", json=body).json()["items"]:
        near = model.similar([item["id"]], k=25)
        cosine_of = dict(zip(near["neighbour"], near["cosine"], strict=True))
        best = sorted(history, key=lambda name: -cosine_of[name])[:2]
        assert [x["id"] for x in item["because"]] == best
        assert item["because"][0]["cosine"] == pytest.approx(
            cosine_of[best[0]], abs=1e-5
        )


def test_a_reload_fails_no_request(client, finished, tmp_path):
    """Requests go on while models are replaced, with items added in between."""
    other = shutil.copytree(finished / "model", tmp_path / "other")
    changed = recjax.load(other)
    changed.add_items({"later": "one two drama"})
    changed.save_pretrained(other)
    client.post("/items", json={"items": [{"id": "n", "text": "three three"}]})
    stop, codes = threading.Event(), []

    def ask():
        while not stop.is_set():
            codes.append(client.get("/recommend/u0").status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    versions = set()
    for folder in (other, finished, other):
        response = client.post("/reload", json={"model": str(folder)})
        assert response.status_code == 200, response.text
        versions.add(response.json()["model"])
        found = ids(client.post("/recommend", json={"history": ["i1"], "k": 30}))
        assert ("later" in found) == (folder == other)
        assert "n" in found
    stop.set()
    thread.join()
    assert set(codes) == {200}
    assert len(versions) == 2


@pytest.mark.parametrize("damage", ["half", "flipped", "golden", "other", "none"])
def test_a_bad_model_is_refused_and_the_old_one_stays(
    client,
    finished,
    tmp_path,
    damage,
):
    folder = shutil.copytree(finished / "model", tmp_path / "bad")
    if damage == "half":
        (folder / "model.safetensors").unlink()
    elif damage == "flipped":
        raw = bytearray((folder / "items.parquet").read_bytes())
        raw[100] ^= 1
        (folder / "items.parquet").write_bytes(raw)
    elif damage == "golden":
        from recjax.common.files import file_sha256

        lists = json.loads((folder / "golden.json").read_text())
        lists[0]["items"].reverse()
        (folder / "golden.json").write_text(json.dumps(lists))
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["golden.json"] = file_sha256(folder / "golden.json")
        (folder / MANIFEST).write_text(json.dumps(manifest))
    elif damage == "other":
        from dataclasses import replace

        import polars as pl

        other = recjax.load(finished)
        items = other.items.with_columns(id=pl.lit("x") + pl.col("id"))
        shutil.rmtree(folder)
        recjax.Model(replace(other.parts, items=items)).save_pretrained(folder)
    else:
        folder = tmp_path / "nowhere"
    before = client.get("/recommend/u0").json()
    response = client.post("/reload", json={"model": str(folder)})
    assert response.status_code == 409
    assert response.json()["error"]
    after = client.get("/recommend/u0").json()
    assert (after["model"], after["items"]) == (before["model"], before["items"])


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/recommend/u0?k=0", None, 422),
        ("GET", "/recommend/u0?k=1000", None, 422),
        ("GET", "/recommend/" + "x" * 300, None, 422),
        ("GET", "/items/nowhere/neighbors", None, 404),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/recommend/u0", None, 405),
        ("DELETE", "/items/nowhere", None, 404),
        ("POST", "/recommend", {}, 422),
        ("POST", "/recommend", {"user": "u", "history": []}, 422),
        ("POST", "/recommend", {"history": ["a"] * 5000}, 422),
        ("POST", "/recommend", {"history": [1]}, 422),
        ("POST", "/recommend", {"history": ["a"], "unknown": 1}, 422),
        ("POST", "/feedback", {"user": "u", "items": []}, 422),
        ("POST", "/feedback", {"user": "", "items": [{"id": "i1"}]}, 422),
        ("POST", "/feedback", {"user": "u\u0000", "items": [{"id": "i1"}]}, 422),
        ("POST", "/feedback", {"user": " \u2028", "items": [{"id": "i1"}]}, 422),
        ("POST", "/feedback", {"user": "NaN", "items": [{"id": "i1"}]}, 422),
        ("POST", "/recommend", {"history": ["a"], "k": True}, 422),
        ("POST", "/recommend", {"history": ["a"], "x" * 5000: 1}, 422),
        ("POST", "/recommend", {"history": ["a"], "a\nb": 1}, 422),
        ("GET", "/recommend/%ff%fe", None, 422),
        ("POST", "/items", {"items": [{"id": "a", "text": " \n"}]}, 422),
        ("POST", "/items", {"items": [{"id": "a", "text": "a\u0000"}]}, 422),
        ("POST", "/feedback", {"user": "u", "items": [{"id": "a\u001fb"}]}, 422),
        ("POST", "/feedback", {"user": "u", "items": [{"id": "a"}], "event": "x"}, 422),
        ("POST", "/items", {"items": [{"id": "a", "text": ""}]}, 422),
        ("POST", "/items", {"items": [{"id": "a", "text": "x" * 20_000}]}, 422),
        (
            "POST",
            "/items",
            {"items": [{"id": f"n{i}", "text": "x"} for i in range(40)]},
            409,
        ),
        ("POST", "/recommend", {"history": ["x" * 200] * 6000}, 413),
    ],
)
def test_bad_requests_are_refused_in_one_line(client, method, path, body, code):
    response = client.request(method, path, json=body)
    assert response.status_code == code, response.text
    assert set(response.json()) == {"error"}
    assert "\n" not in response.json()["error"]
    assert len(response.json()["error"]) <= 300


def test_a_failure_is_one_json_object(client, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(client.app.state.service, "search", fail)
    response = client.get("/items?q=a")
    assert response.status_code == 500
    assert response.json() == {"error": "the service failed; its log says why"}


def test_an_event_id_is_not_used_for_two_events(stored):
    send(stored, "alice", "i1", id="e1")
    body = {"user": "bob", "items": [{"id": "i2"}], "id": "e1"}
    response = stored.post("/feedback", json=body)
    assert response.status_code == 409
    assert "e1" in response.json()["error"]


def test_the_type_of_a_body_is_named(client):
    response = client.post("/recommend", content=b'{"history": []}')
    assert response.status_code == 422
    assert "Content-Type" in response.json()["error"]


def test_invalid_json_is_refused(client):
    headers = {"content-type": "application/json"}
    for raw in (b"{", b"\xff", b"[" * 100_000, b'{"k": 1e999}', b"NaN"):
        response = client.post("/recommend", content=raw, headers=headers)
        assert response.status_code in (400, 422), raw


def test_a_token_is_required_where_it_is_set(finished, tmp_path):
    with start(finished, tmp_path / "e.sqlite", token="secret word") as client:
        body = {"user": "u", "items": [{"id": "i1"}]}
        for headers in (
            {},
            {"authorization": "Bearer no"},
            {"authorization": "Bearer"},
        ):
            assert (
                client.post("/feedback", json=body, headers=headers).status_code == 401
            )
            assert client.get("/recommend/u0", headers=headers).status_code == 401
            # The body is not read before.
            response = client.post("/feedback", content=b"{", headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
        headers = {"authorization": "Bearer secret word"}
        assert client.post("/feedback", json=body, headers=headers).status_code == 200
        assert client.get("/health/ready").status_code == 200
        assert "secret word" not in client.get("/metrics").text
    client.app.state.service.close()


def test_metrics_count_what_happened(client):
    send(client, "u", "i1")
    client.get("/recommend/u")
    client.get("/items/nowhere/neighbors")
    text = client.get("/metrics").text
    for line in (
        'recjax_requests_total{code="200",route="/feedback"} 1.0',
        'recjax_requests_total{code="404",route="/items/{item}/neighbors"} 1.0',
        'recjax_feedback_events_total{kind="interaction"} 1.0',
        "recjax_inference_duration_seconds_count 1.0",
        "recjax_queue_size 0.0",
    ):
        assert line in text


def test_a_failing_store_is_a_503_and_loses_nothing(client, monkeypatch):
    """What was acknowledged stays; what was not is not there."""
    service = client.app.state.service
    send(client, "u", "i1")

    def fail(event):
        raise StoreError("events.sqlite: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(service.store, "add", fail)
        body = {"user": "u", "items": [{"id": "i2"}]}
        response = client.post("/feedback", json=body)
        assert response.status_code == 503
        assert "disk is full" in response.json()["error"]
    events = service.store.history("u").result()
    assert [event.items for event in events] == [("i1",)]


def test_a_full_queue_is_a_429(client, monkeypatch):
    from recjax.serving import engine

    monkeypatch.setattr(engine, "MAX_QUEUE", 0)
    for response in (
        client.get("/recommend/u0"),
        client.post("/recommend", json={"history": ["i1"]}),
        client.post("/embed", json={"texts": ["one"]}),
    ):
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"


def test_titles_reach_the_page_as_text(client):
    """The page itself is constant, and its script sets no HTML."""
    evil = "<img src=x onerror=alert(1)>"
    client.post("/items", json={"items": [{"id": "evil", "text": evil}]})
    assert client.get("/items?q=onerror").json()["items"][0]["title"] == evil
    for path in ("/", "/page.js", "/page.css"):
        response = client.get(path)
        assert response.status_code == 200
        assert "onerror" not in response.text
    assert "innerHTML" not in client.get("/page.js").text


def test_a_store_keeps_events_in_order(store):
    store = open_store(str(store), "--store")
    events = [
        NewEvent(str(i), "interaction", f"u{i % 2}", float(-i), (f"i{i}", "x"))
        for i in range(300)
    ]
    sequences = [future.result() for future in [store.add(event) for event in events]]
    assert sequences == list(range(1, 301))
    found = store.history("u1", after=100).result()
    assert [event.sequence for event in found] == list(range(102, 301, 2))
    assert found[0].items == ("i101", "x")
    assert [event.sequence for event in store.events(298, 10).result()] == [299, 300]
    assert store.last_sequence().result() == 300
    store.close()


def test_a_damaged_store_is_refused(tmp_path):
    from recjax.common.errors import UserError

    path = tmp_path / "events.sqlite"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    with pytest.raises(UserError, match=r"store .*events\.sqlite"):
        SqliteStore(path)
    path.write_text("not a database, but long enough to be read as one" * 100)
    with pytest.raises(UserError, match=r"store .*events\.sqlite"):
        SqliteStore(path)
