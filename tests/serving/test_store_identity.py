"""The identity of a store, which says whose sequences a model's cursor counts."""

import re
import shutil
import sqlite3

from recjax.serving.open_store import open_store
from recjax.serving.store import NewEvent


def identity(name):
    store = open_store(str(name), "--store")
    found = store.identity().result()
    store.close()
    assert re.fullmatch("[0-9a-f]{32}", found)
    return found


def test_a_file_keeps_its_identity_and_another_has_its_own(tmp_path):
    path, other = tmp_path / "events.sqlite", tmp_path / "other.sqlite"
    assert identity(path) == identity(path)
    assert identity(path) != identity(other)
    shutil.copy(path, tmp_path / "copy.sqlite")
    assert identity(tmp_path / "copy.sqlite") == identity(path)


def test_a_redis_keeps_its_identity_until_it_is_emptied(redis):
    redis.clear()
    first = identity(redis.url)
    assert identity(redis.url) == first
    redis.clear()
    assert identity(redis.url) != first


def test_a_store_without_an_identity_gets_one_and_keeps_its_events(tmp_path):
    path = tmp_path / "events.sqlite"
    store = open_store(str(path), "--store")
    event = NewEvent("e1", "interaction", "u", 1.0, ("i1",))
    assert store.add(event).result() == 1
    store.close()
    db = sqlite3.connect(path)
    db.execute("drop table store")
    db.commit()
    db.close()
    assert identity(path) == identity(path)
    store = open_store(str(path), "--store")
    assert store.last_sequence().result() == 1
    store.close()


def test_a_copy_that_cannot_be_written_has_the_identity_of_its_redis(redis):
    import redis as library

    redis.clear()
    first = identity(redis.url)
    db = library.Redis.from_url(redis.url)
    db.replicaof("127.0.0.1", "1")
    try:
        assert identity(redis.url) == first
    finally:
        db.replicaof("NO", "ONE")
