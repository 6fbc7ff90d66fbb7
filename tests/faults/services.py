"""Starts services, and Redis servers, in processes that can be killed."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.faults.runs import ROOT

START_SECONDS = 120.0


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class LiveService:
    """A service in a process of its own.

    Args:
      model: a model directory.
      store: what `--store` names.
      output: file for what it prints.
    """

    def __init__(self, model: Path, store: str, output: Path):
        self.port = free_port()
        self.output = output
        with output.open("a") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "recjax.serve", f"--model={model}"),
                    *(f"--store={store}", f"--port={self.port}", "--spare=64"),
                ],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
            )
        end = time.monotonic() + START_SECONDS
        while self.get("/health/ready")[0] != 200:
            assert self.process.poll() is None, output.read_text()
            assert time.monotonic() < end, "not ready"
            time.sleep(0.1)

    def get(self, path: str) -> tuple[int, Any]:
        """Returns the status and the JSON value of an answer; 0 without one."""
        return self._request(urllib.request.Request(self._url(path)))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Sends JSON; returns as `get` does."""
        raw = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._request(urllib.request.Request(self._url(path), raw, headers))

    def send(self, user: str, item: str, name: str) -> tuple[int, Any]:
        """Sends an event."""
        return self.post(
            "/feedback", {"user": user, "items": [{"id": item}], "id": name}
        )

    def memory_mib(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(x for x in status.splitlines() if x.startswith("VmRSS:"))
        return int(line.split()[1]) // 1024

    def kill(self) -> None:
        """Kills the process at once."""
        self.process.kill()
        self.process.wait()

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _request(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())
        except (OSError, ValueError):
            return 0, None


class RedisServer:
    """A Redis server that writes every event to the disk before it answers."""

    def __init__(self, folder: Path):
        program = shutil.which("redis-server")
        assert program is not None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(program, "--port", str(self.port), "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
        ]
        self.start()

    def start(self) -> None:
        """Starts the server, and waits until it accepts connections."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("Redis does not start")

    def clear(self) -> None:
        """Deletes everything."""
        import redis

        redis.Redis.from_url(self.url).flushall()

    def kill(self) -> None:
        """Kills the server at once."""
        self.process.kill()
        self.process.wait()
