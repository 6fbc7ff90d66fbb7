"""Services that are killed, stopped, reloaded, or lose their store."""

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from recjax.serving.sqlite_store import SqliteStore
from tests.faults.services import LiveService, RedisServer

pytestmark = pytest.mark.faults
pytest.importorskip("fastapi")


@pytest.fixture
def serve(finished, tmp_path):
    """Starts services on the finished run's model, and ends them."""
    started = []

    def start(store=tmp_path / "events.sqlite", model=finished):
        started.append(LiveService(model, str(store), tmp_path / "service.txt"))
        return started[-1]

    yield start
    for service in started:
        service.kill()


def test_kill_9_loses_no_acknowledged_event(serve, tmp_path):
    """Twenty times, each right after an acknowledgement, with others on their way."""
    acknowledged = []
    for turn in range(20):
        service = serve()

        def work(number, service=service, turn=turn):
            for i in range(1000):
                name = f"{turn}-{number}-{i}"
                if service.send(f"u{number}", "i1", name)[0] != 200:
                    return
                acknowledged.append(name)

        before = len(acknowledged)
        with ThreadPoolExecutor(4) as pool:
            for number in range(4):
                pool.submit(work, number)
            while len(acknowledged) < before + 5 + turn:
                time.sleep(0.001)
            service.kill()
        store = SqliteStore(tmp_path / "events.sqlite")
        found = [event.id for event in store.events(0, 10**6).result()]
        store.close()
        assert set(acknowledged) <= set(found)
        assert len(found) == len(set(found))
    assert len(acknowledged) >= 20 * 5


def test_fifty_reloads_fail_no_request_and_keep_the_memory(serve, finished, tmp_path):
    models = [finished / "model", shutil.copytree(finished / "model", tmp_path / "m")]
    service, ended, failed = serve(), threading.Event(), []
    answers = [0] * 4

    def work(number):
        turn = 0
        while not ended.is_set():
            turn += 1
            event = service.send(f"u{number}", f"i{turn % 25}", f"{number} {turn}")
            found = service.get(f"/recommend/u{number}?k=5")
            if (event[0], found[0]) != (200, 200):
                failed.append((event, found))
            elif found[1]["last_event"] < event[1]["sequence"]:
                failed.append("stale")
            answers[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    memory = []
    for turn in range(50):
        assert service.post("/reload", {"model": str(models[turn % 2])})[0] == 200
        memory.append(service.memory_mib())
    ended.set()
    for thread in threads:
        thread.join()
    assert not failed[:3]
    assert min(answers) > 50
    # The first reloads still fill the allocator.
    assert memory[-1] < 1.05 * memory[9], memory


def test_sigterm_answers_what_is_in_progress(serve, tmp_path):
    """Every request has an answer, or no connection; the port is free after it."""
    service = serve()
    found = []

    def work(number):
        for turn in range(10**6):
            code, _ = service.send(f"u{number}", "i1", f"{number} {turn}")
            found.append(code)
            if code != 200:
                return

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    while len(found) < 100:
        time.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=30) in (0, -signal.SIGTERM, 143)
    for thread in threads:
        thread.join()
    assert set(found) <= {200, 0}
    store = SqliteStore(tmp_path / "events.sqlite")
    assert store.last_sequence().result() >= found.count(200)
    store.close()
    assert "Traceback" not in service.output.read_text()


def test_a_locked_store_is_a_503_until_it_is_free(serve, tmp_path):
    path = tmp_path / "events.sqlite"
    service = serve(path)
    assert service.send("u", "i1", "first")[0] == 200
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin exclusive")
    code, answer = service.send("u", "i2", "second")
    assert (code, "locked" in answer["error"]) == (503, True)
    other.execute("rollback")
    other.close()
    assert service.send("u", "i3", "third")[0] == 200
    store = SqliteStore(path)
    names = [event.id for event in store.history("u").result()]
    store.close()
    assert names == ["first", "third"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_a_503_and_loses_nothing(serve, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("cannot mount")
    try:
        service = serve(small / "events.sqlite")
        codes, kept = [], []
        for turn in range(3000):
            code, answer = service.send("u" * 200, "i1", f"{turn:0200}")
            codes.append(code)
            if code != 200:
                break
            kept.append(f"{turn:0200}")
        assert codes[-1] == 503
        assert "full" in answer["error"]
        assert service.get("/recommend/u0?k=3")[0] in (200, 503)
        service.kill()
        shutil.copytree(small, tmp_path / "copy")
        store = SqliteStore(tmp_path / "copy" / "events.sqlite")
        found = {event.id for event in store.events(0, 10**6).result()}
        store.close()
        assert set(kept) <= found
    finally:
        service.kill()
        subprocess.run(["umount", "-l", str(small)], check=False)


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")
def test_redis_that_goes_away_is_a_503_and_loses_nothing(serve, tmp_path):
    pytest.importorskip("redis")
    redis = RedisServer(tmp_path)
    try:
        service = serve(redis.url)
        assert service.send("u", "i1", "first")[0] == 200
        redis.kill()
        code, answer = service.send("u", "i2", "second")
        assert code == 503
        assert answer["error"]
        assert service.get("/recommend/u?k=3")[0] == 503
        redis.start()
        assert service.send("u", "i3", "third")[0] == 200
        code, answer = service.get("/recommend/u?k=25")
        assert code == 200
        assert not {"i1", "i3"} & {item["id"] for item in answer["items"]}
        assert answer["last_event"] >= 2
    finally:
        redis.kill()
