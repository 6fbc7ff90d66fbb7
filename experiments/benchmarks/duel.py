"""Two tools in two processes, measured in turn, so that both see the same machine."""

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
    """A process that measures on demand: a line in, a JSON line out.

    Args:
      module: in this directory.
      args: of the module.
      python: that runs it; default: this one, with the product's own settings.
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
        """One measurement: `{"seconds": ...}` and what else the module says."""
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
    """Seconds of both tools, pair by pair."""

    ours: list[float]
    peer: list[float]

    @property
    def ratio(self) -> float:
        """How many times faster we are: the median over the pairs."""
        pairs = zip(self.ours, self.peer, strict=True)
        return statistics.median(b / a for a, b in pairs)


@contextlib.contextmanager
def workers(
    module: str, peer: str, env: str, *args: str
) -> Iterator[tuple[Worker, Worker]]:
    """Ours, with this process's arguments and `--folder`, and the peer on the folder.

    Args:
      module: in this directory.
      peer: in `peers`.
      env: one of `PEERS`.
      args: more for ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        ours = Worker(module, *sys.argv[1:], *args, f"--folder={folder}")
        other = Worker(f"peers.{peer}", folder, python=peer_python(env))
        yield ours, other
        ours.close()
        other.close()


def duel(ours: Worker, peer: Worker, repeats: int = 5) -> Times:
    """Measures both in turn, after one pair that does not count."""
    pairs = [
        (ours.measure()["seconds"], peer.measure()["seconds"])
        for _ in range(repeats + 1)
    ]
    first, second = zip(*pairs[1:], strict=True)
    return Times(list(first), list(second))


def peer_python(name: str) -> str:
    """Python of an environment with the peers of that name, installed at first use."""
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
    """Median, and least and most in brackets."""
    ordered = sorted(seconds)
    low, middle, high = ordered[0], statistics.median(ordered), ordered[-1]
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def row(work: str, ours: str, peer: str, ratio: float, bar: float | None) -> str:
    """A markdown row; `bar` is the ratio asked for, if any."""
    asked = "" if bar is None else f"{bar:g}x"
    return f"| {work} | {ours} | {peer} | **{ratio:.2f}x** | {asked} | {machine()} |"


def machine() -> str:
    """Processor and number of cores."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"
