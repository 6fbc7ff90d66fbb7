"""The SQLite file of a store: foreign files, locks, and files that are deleted."""

import hashlib
import os
import shutil
import sqlite3
import threading
import time

import pytest

from recjax.common.errors import UserError
from recjax.serving import sqlite_file
from recjax.serving.open_store import open_store
from recjax.serving.sqlite_store import SqliteStore
from recjax.serving.store import NewEvent, StoreError

EVENT = NewEvent("e1", "interaction", "u", 1.0, ("i1",))
ANOTHER = "is an SQLite file of another program"


def write(path, *statements):
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def contents(folder):
    """Returns hashes of files, without the memory that SQLite's readers share."""
    return {
        path.name: hashlib.md5(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if not path.name.endswith("-shm")
    }


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize(
    "table",
    [
        "bookmarks (url)",
        "events (sequence, user)",
        "items (position, id, text, title, state)",
        "store (identity)",
    ],
)
def test_the_file_of_another_program_is_refused_as_it_is(tmp_path, create, mode, table):
    path = tmp_path / "a #1?%20.sqlite"
    write(path, f"pragma journal_mode = {mode}", f"create table {table}")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=ANOTHER):
        open_store(str(path), "--events", create=create)
    assert contents(tmp_path) == before


def test_a_file_in_use_by_another_program_is_refused_as_it_is(tmp_path):
    """Its tables are only in its log."""
    path = tmp_path / "foreign.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("pragma journal_mode = wal")
    other.execute("create table bookmarks (url)")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=ANOTHER):
        open_store(str(path), "--store")
    assert contents(tmp_path) == before
    other.close()


@pytest.mark.parametrize("content", [b"a note", b"a long note" * 1000])
def test_a_file_that_is_no_database_is_refused_as_it_is(tmp_path, content):
    path = tmp_path / "note.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"note\.txt: is not an SQLite file"):
        open_store(str(path), "--store")
    assert contents(tmp_path) == {"note.txt": hashlib.md5(content).hexdigest()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "--store: {}: is a directory"),
        ("pipe", "--store: {}: is not a regular file"),
        ("n" * 300, "--store: {}: File name too long"),
    ],
)
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError) as e:
        open_store(str(tmp_path / name), "--store")
    assert str(e.value) == message.format(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "pipe"}


def test_an_empty_file_becomes_a_store_only_to_write(tmp_path):
    path = tmp_path / "events.sqlite"
    path.touch()
    with pytest.raises(UserError, match="is empty"):
        open_store(str(path), "--events", create=False)
    assert (path.read_bytes(), len(contents(tmp_path))) == (b"", 1)
    store = open_store(str(path), "--store")
    assert store.add(EVENT).result() == 1
    store.close()
    assert len(contents(tmp_path)) == 1
    store = open_store(str(path), "--events", create=False)
    assert store.last_sequence().result() == 1
    store.close()


@pytest.mark.parametrize(
    ("start", "damage", "message"),
    [(-4096, b"\xff" * 4096, "malformed"), (36, b"\0\0\0\x05", "is damaged")],
)
def test_a_damaged_store_is_refused_as_it_is(tmp_path, start, damage, message):
    """In its last page; and in the number of pages that are free."""
    path = tmp_path / "events.sqlite"
    store = SqliteStore(path)
    for i in range(200):
        store.add(EVENT._replace(id=str(i)))
    store.close()
    content = bytearray(path.read_bytes())
    content[start : start + len(damage) or None] = damage
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_store_can_be_opened_while_another_process_writes(tmp_path):
    path = tmp_path / "events.sqlite"
    SqliteStore(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    store = open_store(str(path), "--events", create=False)
    assert store.last_sequence().result() == 0
    store.close()
    other.close()


def test_a_locked_store_fails_all_writes_at_once_and_answers_reads(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.5)
    path = tmp_path / "events.sqlite"
    store = SqliteStore(path)
    assert store.add(EVENT).result() == 1
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    start = time.monotonic()
    writes = [store.add(EVENT._replace(id=f"w{i}")) for i in range(100)]
    assert [event.id for event in store.history("u").result(timeout=5)] == ["e1"]
    assert time.monotonic() - start < 0.4
    for write in writes:
        with pytest.raises(StoreError, match=r"events\.sqlite: database is locked"):
            write.result(timeout=10)
    assert time.monotonic() - start < 5
    other.execute("rollback")
    other.close()
    assert store.add(EVENT._replace(id="e2")).result() == 2
    store.close()


def test_a_full_disk_is_named_and_fails_all_writes_of_its_transaction(tmp_path):
    store = SqliteStore(tmp_path / "events.sqlite")
    started, released = threading.Event(), threading.Event()

    def limit_pages(db):
        db.execute("pragma max_page_count = 12").fetchall()
        started.set()
        released.wait(20)

    store._writer.submit(limit_pages)
    assert started.wait(20)  # so that the next two share a transaction
    small = store.add(EVENT._replace(id="small"))
    large = store.add(EVENT._replace(id="large", user="u" * 100_000))
    released.set()
    for job in (small, large):
        with pytest.raises(
            StoreError, match=r"events\.sqlite: database or disk is full"
        ):
            job.result(timeout=10)
    assert store.last_sequence().result(timeout=10) == 0
    assert store.add(EVENT).result(timeout=10) == 1
    store.close()


@pytest.mark.parametrize("change", ["delete", "delete log", "replace", "move"])
def test_a_write_into_a_deleted_or_replaced_file_fails(tmp_path, change):
    path, log = tmp_path / "events.sqlite", tmp_path / "events.sqlite-wal"
    store = SqliteStore(path)
    assert store.add(EVENT).result() == 1
    if change == "delete":
        path.unlink()
    elif change == "delete log":
        log.unlink()
    elif change == "replace":
        shutil.copy(path, tmp_path / "copy")
        (tmp_path / "copy").rename(path)
    else:
        path.rename(tmp_path / "moved")
    for turn in range(2):
        with pytest.raises(StoreError, match=r"events\.sqlite: the file, or its log"):
            store.add(EVENT._replace(id=f"later {turn}")).result(timeout=10)
    if change == "move":
        (tmp_path / "moved").rename(path)
        assert store.add(EVENT._replace(id="back")).result(timeout=10) == 4
    store.close()


def test_a_link_to_a_store_is_a_store(tmp_path):
    (tmp_path / "data").mkdir()
    link = tmp_path / "events.sqlite"
    link.symlink_to(tmp_path / "data" / "events.sqlite")
    for sequence in (1, 2):
        store = SqliteStore(link)
        event = EVENT._replace(id=str(sequence))
        assert store.add(event).result(timeout=10) == sequence
        if sequence == 2:
            (tmp_path / "data" / "events.sqlite-wal").unlink()
            with pytest.raises(StoreError, match=r"/events\.sqlite: the file, or its"):
                store.add(EVENT).result(timeout=10)
        store.close()


def test_two_stores_that_are_made_at_once_are_one(tmp_path):
    path, found = tmp_path / "events.sqlite", []

    def work():
        store = SqliteStore(path)
        found.append(store.identity().result(timeout=20))
        store.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (4, 1)


def test_text_that_is_not_utf8_is_an_error_of_its_own_job(tmp_path):
    path = tmp_path / "events.sqlite"
    store = SqliteStore(path)
    store.add(EVENT).result()
    write(
        path,
        "insert into events (id, kind, user, timestamp, items, received)"
        " values ('e2', 'interaction', 'v', 1, cast(x'ff' as text), 1)",
    )
    bad, good = store.history("v"), store.history("u")
    with pytest.raises(StoreError, match=r"events\.sqlite: Could not decode"):
        bad.result(timeout=10)
    assert len(good.result(timeout=10)) == 1
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.history("u").result(timeout=10)
