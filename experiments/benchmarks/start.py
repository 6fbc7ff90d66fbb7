"""Measures the time to the first training step: of a first and of a second start.

    python -m experiments.benchmarks.start --config=configs/quickstart.py

Both runs have their own directory and share a cache, which at first has only the
downloaded data and weights. A run ends as soon as its first step is in
`metrics.jsonl`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.benchmarks import duel
from recjax.common.files import cache_dir

MADE = ("compiled", "prefix", "peers")  # what runs add to the cache


def seconds(config: str, cache: Path, workdir: Path) -> float:
    """Returns the seconds until the first step of a run is done."""
    command = [sys.executable, "-m", "recjax.main", f"--config={config}"]
    command += [f"--workdir={workdir}", "--config.report.every_steps=1"]
    start, records = time.perf_counter(), workdir / "metrics.jsonl"
    with subprocess.Popen(
        command,
        cwd=duel.ROOT,
        env={**os.environ, "RECJAX_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not (records.exists() and "train/loss" in records.read_text()):
            if process.poll() is not None:
                sys.exit(f"error: {' '.join(command)} ended early")
            time.sleep(0.01)
        elapsed = time.perf_counter() - start
        process.terminate()
    return elapsed


def main() -> None:
    """Prints a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    times = duel.Times([], [])
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder, "cache")
            cache.mkdir()
            for path in cache_dir().iterdir():
                if path.name not in MADE:
                    (cache / path.name).symlink_to(path)
            times.peer.append(seconds(args.config, cache, Path(folder, "first")))
            times.ours.append(seconds(args.config, cache, Path(folder, "second")))
            print(f"{times.peer[-1]:.1f} s, {times.ours[-1]:.1f} s", file=sys.stderr)
    print(
        duel.row(
            f"start to first step, {Path(args.config).stem}",
            f"second start {duel.spread(times.ours)} s",
            f"first start {duel.spread(times.peer)} s",
            times.ratio,
            3,
        )
    )


if __name__ == "__main__":
    main()
