"""Measures how soon a list reflects an event, by the size of the catalogue.

    python -m experiments.benchmarks.service --items 10000 100000 1000000
    python -m experiments.benchmarks.service --items 10000 --clients 8 --cycles=1250 \
        --repeats=1

A model with random vectors of width 128 is served over HTTP by a process of its own,
with SQLite, and clients in another process send an event and ask for the list. The
processor's share of all other processes is measured in the same seconds.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import duel
from recjax.common.param_paths import FlatParams
from recjax.config import base
from recjax.inference import golden
from recjax.inference.files import save_parts
from recjax.inference.model import Model
from recjax.inference.parts import TRAINED, ItemVectors, ModelParts, make_item_table
from recjax.models.recommender import make_model
from recjax.training.initial_params import trace_init

WIDTH = 128
PERCENTILES = (50, 99)
START_SECONDS = 300  # for a service to be ready
GOALS_MS = {10_000: 5, 100_000: 8, 1_000_000: 30}  # p99 of one client


def random_model(num_items: int) -> ModelParts:
    """Makes a model of ids with random parameters."""
    config = base.get_config()
    config.item_tower.sources, config.item_tower.width = ("id",), WIDTH
    config.lock()
    trace = trace_init(config, make_model(config, num_items, None))
    rng = np.random.default_rng(0)
    params: FlatParams = {}
    for path, shape in trace.shapes.items():
        # A service reads the vectors of the items, not what they were made of.
        if not path.startswith("items/"):
            params[path] = 0.05 * rng.standard_normal(shape.shape, np.float32)
    vectors = rng.standard_normal((num_items, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"i{item}" for item in range(num_items)]
    items = make_item_table(ids, ids, ids, [1] * num_items, [TRAINED] * num_items)
    bias_N = np.zeros(num_items, np.float32)
    return ModelParts(config, params, items, ItemVectors(vectors, vectors, bias_N))


class ServiceProcess:
    """A service in a process of its own, ready to answer.

    Attributes:
      port: its port.
      start_seconds: from its start until it was ready.
    """

    def __init__(self, model: Path, store: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        start = time.perf_counter()
        command = [sys.executable, "-m", "recjax.serve", f"--model={model}"]
        self.process = subprocess.Popen(
            [*command, f"--port={self.port}", f"--store={store}"],
            stdout=subprocess.DEVNULL,
        )
        while not self._is_ready():
            if self.process.poll() is not None:
                sys.exit(f"error: the service ended with {self.process.returncode}")
            if time.perf_counter() - start > START_SECONDS:
                self.close()
                sys.exit(f"error: the service is not ready after {START_SECONDS} s")
            time.sleep(0.2)
        self.start_seconds = time.perf_counter() - start

    def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def cpu_seconds(self) -> float:
        """Processor seconds that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.wait()


def busy_seconds() -> float:
    """Processor seconds that all processes of the machine have used."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, first[1:9])
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(service: ServiceProcess, clients: int, cycles: int, items: int) -> Any:
    """Runs clients in a process of their own; adds the share of other processes."""
    command = [sys.executable, "-m", "experiments.benchmarks.load_client"]
    options = {"port": service.port, "clients": clients, "items": items}
    busy, own = busy_seconds(), service.cpu_seconds()
    before = os.times()
    start = time.perf_counter()
    done = subprocess.run(
        [*command, f"--cycles={cycles}", *(f"--{k}={v}" for k, v in options.items())],
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds = time.perf_counter() - start
    after = os.times()
    own = service.cpu_seconds() - own
    children = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    found = json.loads(done.stdout)
    others = busy_seconds() - busy - own - children
    found["others"] = max(others, 0) / seconds / (os.cpu_count() or 1)
    return found


def row(items: int, clients: int, runs: list[dict[str, Any]]) -> str:
    """Returns a Markdown row: medians of some runs, with their range."""

    def spread(values: list[float]) -> str:
        low, middle, high = np.percentile(values, [0, 50, 100])
        return f"{middle:.1f} [{low:.1f}, {high:.1f}]"

    goal = GOALS_MS.get(items, 0) if clients == 1 else 0
    cycles = [
        spread([np.percentile(x["cycle_ms"], q) for x in runs]) for q in PERCENTILES
    ]
    stored = [
        np.median([np.percentile(x["event_ms"], q) for x in runs]) for q in PERCENTILES
    ]
    cells = [
        f"{items:,}",
        f"{clients}",
        f"{sum(len(x['cycle_ms']) for x in runs):,}",
        *cycles,
        f"{goal}" if goal else "",
        f"{stored[0]:.1f} / {stored[1]:.1f}",
        f"{np.median([len(x['cycle_ms']) / x['seconds'] for x in runs]):.0f}",
        f"{sum(x['stale'] for x in runs)}",
        f"{sum(x['failed'] for x in runs)}",
        f"{max(x['others'] for x in runs):.0%}",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| items | clients | cycles | event to list p50, ms | p99, ms | goal | event "
    f"stored p50 / p99, ms | lists/s | stale | failed | others |\n{11 * '|---'}|"
)


def measure_all(
    items: int, clients: Sequence[int], cycles: int
) -> list[dict[str, Any]]:
    """Serves a catalogue, and measures each number of clients."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        parts = random_model(items)
        save_parts(parts, model, golden.make(Model(parts)), "random vectors\n")
        del parts
        service = ServiceProcess(model, f"{folder}/events.sqlite")
        try:
            measure(service, max(clients), 20, items)  # warm connections
            return [measure(service, each, cycles, items) for each in clients]
        finally:
            service.close()


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--cycles", type=int, default=400, help="cycles of a client")
    parser.add_argument("--repeats", type=int, default=5, help="services in turn (5)")
    args = parser.parse_args()
    print(f"{duel.machine()}; jax {jax.__version__}; width {WIDTH}\n\n{HEADER}")
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    # One after the other, so that a busy minute of the machine is in one run of each.
    for _ in range(args.repeats):
        for items in args.items:
            runs = measure_all(items, args.clients, args.cycles)
            for clients, run in zip(args.clients, runs, strict=True):
                found.setdefault((items, clients), []).append(run)
    for (items, clients), runs in found.items():
        print(row(items, clients, runs), flush=True)


if __name__ == "__main__":
    main()
