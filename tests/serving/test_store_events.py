"""Events in either store: ids that are used twice, and limits."""

import pytest

from recjax.serving import redis_store, sqlite_store
from recjax.serving.limits import QueueFull
from recjax.serving.open_store import open_store
from recjax.serving.store import (
    SHOWN,
    EventConflict,
    NewEvent,
    StoredItem,
    StoreError,
)

EVENT = NewEvent("e1", "interaction", "alice", 1.0, ("50", "51"))


@pytest.fixture
def opened(store):
    found = open_store(str(store), "--store")
    yield found
    found.close()


@pytest.mark.parametrize(
    "other",
    [
        {"user": "bob"},
        {"items": ("100",)},
        {"items": ("51", "50")},
        {"kind": "retraction"},
    ],
)
def test_an_id_of_another_event_is_a_conflict(opened, other):
    assert opened.add(EVENT).result() == 1
    with pytest.raises(EventConflict) as e:
        opened.add(EVENT._replace(**other)).result()
    assert str(e.value) == "the event id 'e1' was used for another event"
    assert [event.user for event in opened.events(0, 10).result()] == ["alice"]


def test_the_same_event_again_is_no_conflict_and_leaves_no_gap(opened):
    assert opened.add(EVENT).result() == 1
    assert opened.add(EVENT._replace(timestamp=2.0)).result() == 1
    with pytest.raises(EventConflict):
        opened.add(EVENT._replace(user="bob")).result()
    assert opened.add(EVENT._replace(id="e2")).result() == 2


def test_jobs_that_fail_fail_alone_and_the_store_goes_on(opened):
    """An integer that no store can keep, and text that is not Unicode."""
    jobs = [
        opened.add(EVENT),
        opened.add(EVENT._replace(id="e2", user="\ud800")),
        opened.add(EVENT._replace(user="bob")),
        opened.put_items(
            [StoredItem("i0", "", "", SHOWN), StoredItem("i1", 2**70, "", "\ud800")]
        ),
        opened.history("alice", 2**70),
        opened.add(EVENT._replace(id="e3")),
    ]
    errors = [type(job.exception(timeout=20)) for job in jobs]
    none = type(None)
    assert errors[:4] == [none, StoreError, EventConflict, StoreError]
    assert errors[5] is none
    assert jobs[5].result() == 2
    assert opened.items().result(timeout=20) == []
    assert len(opened.history("alice").result(timeout=20)) == 2


def test_a_request_that_was_cancelled_is_not_stored(opened):
    """A client that has gone must not end the thread."""
    jobs = [opened.add(EVENT._replace(id=str(i))) for i in range(200)]
    cancelled = sum(job.cancel() for job in jobs)
    assert opened.add(EVENT).result(timeout=20) == 201 - cancelled
    assert opened.last_sequence().result(timeout=20) == 201 - cancelled


def test_too_many_waiting_jobs_are_refused(store, monkeypatch):
    monkeypatch.setattr(redis_store, "MAX_QUEUE", 0)
    monkeypatch.setattr(sqlite_store, "MAX_QUEUE", 0)
    full = open_store(str(store), "--store")
    for call in (
        lambda: full.add(EVENT),
        lambda: full.history("alice"),
        lambda: full.put_items([]),
        full.items,
    ):
        with pytest.raises(QueueFull):
            call()
    full.close()


def test_room_comes_back_when_jobs_are_done(store, monkeypatch):
    monkeypatch.setattr(redis_store, "MAX_QUEUE", 2)
    monkeypatch.setattr(sqlite_store, "MAX_QUEUE", 2)
    small = open_store(str(store), "--store")
    for i in range(20):
        assert small.add(EVENT._replace(id=str(i))).result(timeout=20) == i + 1
    small.close()


def test_jobs_of_a_closed_store_fail_and_take_no_room(store, monkeypatch):
    monkeypatch.setattr(redis_store, "MAX_QUEUE", 2)
    monkeypatch.setattr(sqlite_store, "MAX_QUEUE", 2)
    closed = open_store(str(store), "--store")
    pending = closed.add(EVENT)
    closed.close()
    assert pending.result(timeout=0) == 1
    for _ in range(5):
        for job in (closed.add(EVENT), closed.history("alice"), closed.items()):
            with pytest.raises(StoreError, match=r"is closed$"):
                job.result(timeout=0)
    closed.close()
