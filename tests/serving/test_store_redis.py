"""Redis as a store: addresses with passwords, foreign data, no answer."""

import re
import signal
import time

import pytest

from recjax.common.errors import UserError
from recjax.serving import redis_store
from recjax.serving.open_store import open_store
from recjax.serving.store import SHOWN, NewEvent, StoredItem, StoreError

EVENT = NewEvent("e1", "interaction", "1", 1.0, ("i1",))
ITEM = StoredItem("i1", "text", "title", SHOWN)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("postgres://u:SECRET@h/db", "--store: 'postgres://h' begins with none of"),
        ("Postgres://u:SECRET@h/db", "--store: 'Postgres://h' begins with none of"),
        ("REDIS://u:SECRET@127.0.0.1:1/0", "store redis://127.0.0.1:1/0: Error"),
        ("redis://127.0.0.1:1?password=SECRET&db=2", "store redis://127.0.0.1:1/2: E"),
        ("unix:///nowhere?password=SECRET", "store unix:///nowhere: Error"),
        ("redis://u:SECRET/1@h:1/0", "store redis://: the address is not valid"),
        ("redis://u:1/SECRET@h:1/0", "store redis://: the address is not valid"),
        ("redis://u:1?SECRET@h:1/0", "store redis://: the address is not valid"),
        ("redis://127.0.0.1:1/0?pasword=SECRET", "store redis://127.0.0.1:1/0: the ad"),
        ("redis://u:SECRET@[h/0", "store redis://: the address is not valid"),
        ("redis://[::1]:1/SECRET", "store redis://[::1]:1: Error"),
        ("redis:", "--store: 'redis:' begins an address, which needs //"),
        ("redis:u:SECRET@h:6379", "--store: 'redis:' begins an address"),
        ("u:SECRET@h:6379/0", "--store: 'u:' begins an address"),
        (":memory:", "--store: ':' begins an address"),
    ],
)
def test_an_address_is_refused_without_its_password(
    tmp_path, monkeypatch, name, message
):
    pytest.importorskip("redis")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as e:
        open_store(name, "--store")
    assert str(e.value).startswith(message)
    assert "secret" not in str(e.value).lower()
    assert not [*tmp_path.iterdir()]


def test_a_file_may_have_a_colon_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("./events:1.sqlite", "2026-11-30T12:00.sqlite"):
        open_store(name, "--store").close()
        assert (tmp_path / name).is_file()


@pytest.fixture
def opened(redis):
    redis.clear()
    store = open_store(redis.url.replace("redis:", "Redis:"), "--store")
    store.add(EVENT).result()
    store.put_items([ITEM]).result()
    yield store
    store.close()


@pytest.mark.parametrize(
    ("command", "call", "message"),
    [
        (("zadd", "recjax:items", 5, b"\xff"), "items", "not UTF-8"),
        (("hset", "recjax:item:i1", "text", b"\xff"), "item", "not UTF-8"),
        (("hdel", "recjax:item:i1", "state"), "items", "item:i1 is no item"),
        (("hdel", "recjax:item:i1", "state"), "item", "item:i1 is no item"),
        (("set", "recjax:item:i1", "x"), "item", "WRONGTYPE"),
        (("zadd", "recjax:user:1", 5, "foreign"), "history", "no event"),
        (("zadd", "recjax:user:1", 5, 5), "history", "event:5 is no event"),
        (("hset", "recjax:event:1", "timestamp", "x"), "history", "no event"),
        (("set", "recjax:sequence", "x"), "last_sequence", "invalid literal"),
    ],
)
def test_foreign_data_are_an_error_in_one_line(redis, opened, command, call, message):
    import redis as library

    library.Redis.from_url(redis.url).execute_command(command[0].upper(), *command[1:])
    arguments = {"item": ("i1",), "history": ("1",)}.get(call, ())
    with pytest.raises(StoreError, match=message) as e:
        getattr(opened, call)(*arguments).result(timeout=20)
    assert str(e.value).startswith(f"{redis.url}: ")
    assert "\n" not in str(e.value)
    assert opened.add(EVENT).result(timeout=20) == 1


def test_fields_of_a_later_version_are_left_alone(redis, opened):
    import redis as library

    library.Redis.from_url(redis.url).hset("recjax:item:i1", "later", "x")
    assert opened.items().result() == [ITEM]


def test_a_redis_that_does_not_answer_fails_all_that_wait(monkeypatch, redis):
    """The first one waits for it, and those behind it fail with it."""
    monkeypatch.setattr(redis_store, "TIMEOUT", 0.3)
    redis.clear()
    store = open_store(redis.url, "--store")
    store.add(EVENT).result()
    redis.process.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        jobs = [store.add(EVENT._replace(id=str(i))) for i in range(20)]
        for job in jobs:
            with pytest.raises(StoreError, match=f"^{re.escape(redis.url)}: "):
                job.result(timeout=30)
        assert time.monotonic() - start < 3
    finally:
        redis.process.send_signal(signal.SIGCONT)
    assert store.add(EVENT._replace(id="after")).result(timeout=20) > 1
    store.close()


def test_items_keep_their_order_and_get_their_positions_at_once(redis, opened):
    import redis as library

    db = library.Redis.from_url(redis.url)
    db.config_resetstat()
    items = [ITEM._replace(id=f"i{i}") for i in (9, 1, 3, 2, 3)]
    opened.put_items(items).result()
    assert db.info("commandstats")["cmdstat_incrby"]["calls"] == 1
    opened.put_items([]).result()
    opened.put_items([ITEM._replace(id="i0")]).result()
    found = [item.id for item in opened.items().result()]
    assert found == ["i1", "i9", "i3", "i2", "i0"]
