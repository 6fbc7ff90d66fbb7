"""Measures two tools in two processes in turn, so that both see the same load."""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recjax.common.files import cache_dir

ROOT = Path(__file__).parents[2]
PEERS: dict[str, Sequence[str]] = {
    "torch": (
        "torch==2.13.0",
        "sentence-transformers==6.2.0",
        "rectools[torch]==0.19.0",
    ),
    "search": ("faiss-cpu==1.15.1", "onnxruntime==1.32.0", "onnx", "numpy"),
    # RecBole 1.2.1 was written for older libraries and does not say so.
    "recbole": (
        "torch==2.13.0",
        "recbole==1.2.1",
        "setuptools<81",
        "numpy<2",
        "pandas<2.2",
        "scipy<1.12",
    ),
}


class Worker:
    """A process that measures on demand: it reads a line and writes a JSON line.

    Attributes:
      about: description that the process printed at its start.

    Args:
      module: name of a module in this directory.
      args: arguments of the module.
      python: interpreter; by default this one, with the settings of recjax.
    """

    def __init__(self, module: str, *args: str, python: str = ""):
        self.name = name = f"experiments.benchmarks.{module}"
        command = [python, "-m", name]
        if not python:
            command = [sys.executable, "-m", "experiments.benchmarks.worker", name]
        self._process = subprocess.Popen(
            [*command, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.about = self._read()

    def measure(self) -> dict[str, Any]:
        """Returns one measurement: `{"seconds": ...}` and other values."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print too
                found: dict[str, Any] = json.loads(line)
                return found
        sys.exit(f"error: {self.name} ended with {self._process.wait()}")


@dataclass(frozen=True)
class Times:
    """Seconds of both tools in each pair."""

    ours: list[float]
    peer: list[float]

    @property
    def ratio(self) -> float:
        """The peer's time divided by ours: the median over the pairs."""
        pairs = zip(self.ours, self.peer, strict=True)
        return statistics.median(b / a for a, b in pairs)


@contextlib.contextmanager
def workers(
    module: str, peer: str, env: str, *args: str
) -> Iterator[tuple[Worker, Worker]]:
    """Starts our worker with this process's arguments, and the peer's on its folder.

    Args:
      module: name of our module in this directory.
      peer: name of the module in `peers`.
      env: environment of the peer, a key of `PEERS`.
      args: further arguments of our module.
    """
    with tempfile.TemporaryDirectory() as folder:
        ours = Worker(module, *sys.argv[1:], *args, f"--folder={folder}")
        other = Worker(f"peers.{peer}", folder, python=peer_python(env))
        yield ours, other
        ours.close()
        other.close()


def duel(ours: Worker, peer: Worker, repeats: int = 5) -> Times:
    """Measures both in turn, after one pair of warm-up."""
    pairs = [
        (ours.measure()["seconds"], peer.measure()["seconds"])
        for _ in range(repeats + 1)
    ]
    first, second = zip(*pairs[1:], strict=True)
    return Times(list(first), list(second))


def peer_python(name: str) -> str:
    """Returns the interpreter of a peer's environment, installed at first use."""
    folder = cache_dir() / "peers" / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(PEERS[name])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(PEERS[name])} into {folder}", file=sys.stderr)
        make = [sys.executable, "-m", "venv", "--clear", str(folder)]
        subprocess.run(make, check=True)
        install = [str(python), "-m", "pip", "install", "-q", *PEERS[name]]
        subprocess.run(install, check=True)
        done.write_text(wanted)
    return str(python)


def spread(seconds: Sequence[float]) -> str:
    """Formats the median, with minimum and maximum in brackets."""
    ordered = sorted(seconds)
    low, middle, high = ordered[0], statistics.median(ordered), ordered[-1]
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def row(work: str, ours: str, peer: str, ratio: float, goal: float | None) -> str:
    """Returns a Markdown row; `goal` is the smallest ratio that we aim at, if any."""
    goal_cell = "" if goal is None else f"{goal:g}x"
    return (
        f"| {work} | {ours} | {peer} | **{ratio:.2f}x** | {goal_cell} | {machine()} |"
    )


def machine() -> str:
    """Returns the processor and the number of cores."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"
