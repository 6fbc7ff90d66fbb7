"""Starts runs in processes that can be killed, and compares their results."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recjax.checkpointing.checkpoints import read_params

ROOT = Path(__file__).parents[2]


def command(data: Path, workdir: Path, *more: str, config: str = "config") -> list[str]:
    """Returns the command of a run with a config of this directory."""
    return [
        sys.executable,
        "-m",
        "recjax.main",
        f"--config=tests/faults/{config}.py:{data}",
        f"--workdir={workdir}",
        *more,
    ]


def start(
    data: Path, workdir: Path, *more: str, config: str = "config", **env: str
) -> subprocess.Popen[str]:
    """Starts a run; its output goes to a file next to the run directory."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with (workdir.parent / f"{workdir.name}.txt").open("a") as out:
        return subprocess.Popen(
            command(data, workdir, *more, config=config),
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", **env},
        )


def output(workdir: Path) -> str:
    """Returns what a run has printed, over all starts."""
    return (workdir.parent / f"{workdir.name}.txt").read_text()


def finish(data: Path, workdir: Path, *more: str, **env: str) -> int:
    """Runs to the end; returns the exit code."""
    return start(data, workdir, *more, **env).wait(timeout=300)


def records(workdir: Path) -> list[dict[str, float]]:
    """Reads `metrics.jsonl` without times, and without an incomplete last line."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    each = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in each]


def last_step(workdir: Path) -> int:
    """Returns the newest step in `metrics.jsonl`; 0 if there is none."""
    return int(max((r["step"] for r in records(workdir)), default=0))


def kill_when(
    process: "subprocess.Popen[str]",
    due: Callable[[], bool],
    how: signal.Signals = signal.SIGKILL,
    timeout: float = 120,
) -> bool:
    """Sends a signal as soon as it is due; False if the process ended before."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            return False
        if due():
            process.send_signal(how)
            if how == signal.SIGKILL:
                process.wait()
            return True
        time.sleep(0.002)
    process.kill()
    raise TimeoutError


def parameters(workdir: Path) -> dict[str, np.ndarray]:
    """Returns the final parameters of a run."""
    return {k: np.asarray(x) for k, x in read_params(workdir).items()}


def scalars(workdir: Path) -> list[tuple[str, int, float]]:
    """Returns all scalars in TensorBoard except times: tag, step and value."""
    events = EventAccumulator(str(workdir), size_guidance={"scalars": 0})
    events.Reload()
    return [
        (tag, e.step, e.value)
        for tag in sorted(events.Tags()["scalars"])
        if not tag.startswith("time/")
        for e in events.Scalars(tag)
    ]


def assert_same_training(a: Path, b: Path) -> None:
    """Compares parameters bit for bit, metrics.jsonl and TensorBoard."""
    first, second = parameters(a), parameters(b)
    assert first.keys() == second.keys()
    for path, x in first.items():
        assert x.tobytes() == second[path].tobytes(), path
    assert records(a) == records(b)
    assert scalars(a) == scalars(b)


def assert_same(a: Path, b: Path) -> None:
    """Compares training, results and ranks, which contain or depend on the config."""
    assert_same_training(a, b)
    results = [json.loads((w / "results.json").read_text()) for w in (a, b)]
    for each in results:
        each.pop("seconds")
        each.pop("peak_memory_mib")
    assert results[0] == results[1]
    assert pl.read_parquet(a / "ranks.parquet").equals(
        pl.read_parquet(b / "ranks.parquet")
    )
