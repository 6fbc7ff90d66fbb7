"""A service whose model reads the times of events."""

import polars as pl
import pytest

import recjax
from tests.serving.test_service import ids, send, start

SECONDS = (2_000.0, 2_001.0, 90_000.0)


@pytest.fixture
def client(timed, tmp_path):
    with start(timed, tmp_path / "events.sqlite") as client:
        yield client
    client.app.state.service.close()


def test_lists_and_ranks_use_the_times_of_events(client, timed):
    """Of the model's own histories, and of events that the service received."""
    model = recjax.load(timed)
    known = model.users[0]
    before = model.ids.history_times(known).tolist()
    histories = {"someone new": ([], []), known: (model.ids.history_ids(known), before)}
    for user, (items, times) in histories.items():
        for item, seconds in zip(("i3", "i7", "i1"), SECONDS, strict=True):
            send(client, user, item, timestamp=seconds)
        frame = pl.DataFrame(
            {
                "user_id": user,
                "item_id": [*items, "i3", "i7", "i1"],
                "timestamp": [*times, *SECONDS],
            }
        )
        want = model.recommend(histories=frame, k=25)
        found = client.get(f"/recommend/{user}?k=25")
        assert ids(found) == want["item"].to_list()
        scores = [item["score"] for item in found.json()["items"]]
        assert scores == pytest.approx(want["score"].to_list(), abs=1e-4)
        body = {"user": user, "items": [{"id": name} for name in ids(found)]}
        assert ids(client.post("/rank", json=body)) == ids(found)


def test_a_history_of_ids_has_unknown_times(client, timed):
    want = recjax.load(timed).recommend(histories=[["i3", "i7"]], k=5)
    found = client.post("/recommend", json={"history": ["i3", "i7"], "k": 5})
    assert ids(found) == want["item"].to_list()
