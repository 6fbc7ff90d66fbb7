"""Starting a service: ports, stores, and mistakes in their names."""

import socket
import sys

import pytest

from recjax import command, serve
from recjax.common.errors import UserError
from recjax.serving.open_store import open_store

pytest.importorskip("uvicorn")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mysql://x", "'mysql://x' begins with none of redis://"),
        ("nowhere/events.sqlite", "no such directory"),
        ("nofile.sqlite", "no such file"),
    ],
)
def test_a_store_that_does_not_exist_is_named(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_store(name, "--events", create=False)
    assert not [*tmp_path.iterdir()]


def test_a_port_in_use_is_found_before_the_model_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(command, "exit_soon", sys.exit)
    monkeypatch.setattr(command, "keep_console", lambda **_: None)
    monkeypatch.setattr(command, "keep_memory", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match="2"):
            serve.main(["--model=nowhere", f"--port={port}"])
    message = f"error: --port: 127.0.0.1:{port}: Address already in use\n"
    assert capsys.readouterr().err == message


def test_a_store_that_fails_at_the_start_is_named(
    finished, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, "exit_soon", sys.exit)
    monkeypatch.setattr(command, "keep_console", lambda **_: None)
    monkeypatch.setattr(command, "keep_memory", lambda: None)
    store = open_store(str(tmp_path / "e.sqlite"), "--store")
    store.close()
    monkeypatch.setattr("recjax.serving.open_store.open_store", lambda *_: store)
    with pytest.raises(SystemExit, match="2"):
        serve.main([f"--model={finished}", "--port=0"])
    assert "error: --store: " in capsys.readouterr().err
