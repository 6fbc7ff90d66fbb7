"""Stores to test with."""

import shutil

import pytest

from tests.faults.services import RedisServer


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    """A Redis server."""
    pytest.importorskip("redis")
    if not shutil.which("redis-server"):
        pytest.skip("needs redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def store(request, tmp_path):
    """What `--store` names: a file, or an empty Redis."""
    if request.param == "sqlite":
        return tmp_path / "events.sqlite"
    server = request.getfixturevalue("redis")
    server.clear()
    return server.url
