"""Measures the cost of checkpoints.

    python -m experiments.benchmarks.checkpoints --config=configs/quickstart.py

Measures in two ways, because the difference is smaller than the noise between runs:

- pairs of complete runs in their own processes, with and without checkpoints;
- a run that waits for each checkpoint, and adds up the time. A run saves during
  its steps, so this is an upper bound of the cost.
"""

import argparse
import json
import runpy
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, run
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import duel
from recjax.checkpointing.checkpoints import Checkpoints

NEVER, WAITED = "--never", "--waited"


def seconds(config: str, every: float, *how: str) -> tuple[float, int, float]:
    """Runs a config, and returns the cost of its checkpoints.

    Args:
      config: path of the config file.
      every: seconds between two checkpoints.
      how: `NEVER` for no checkpoints, `WAITED` to wait for each of them.

    Returns:
      Seconds of the run, bytes of its checkpoints, and with `WAITED` the seconds that
      it waited for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.benchmarks.checkpoints", *how]
        command += [f"--config={config}", f"--workdir={folder}/run"]
        command += [f"--config.train.checkpoint_seconds={every}"]
        start = time.perf_counter()
        run(command, check=True, cwd=duel.ROOT, stdout=DEVNULL)
        elapsed = time.perf_counter() - start
        saved = Path(folder, "run", "checkpoints").rglob("*")
        size = sum(p.stat().st_size for p in saved if p.is_file())
        note = Path(folder, "run", "waited.json")
        return elapsed, size, json.loads(note.read_text()) if note.exists() else 0.0


def main() -> None:
    """Prints a Markdown row, and an upper bound on the cost of checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--every", type=float, default=60.0, help="seconds")
    parser.add_argument("--repeats", type=int, default=5, help="pairs")
    parser.add_argument("--waited", type=int, default=3, help="runs that wait")
    args = parser.parse_args()
    times, size = duel.Times([], []), 0
    for i in range(args.repeats):
        for never in (False, True) if i % 2 else (True, False):
            how = [NEVER] if never else []
            elapsed, written, _ = seconds(args.config, args.every, *how)
            (times.peer if never else times.ours).append(elapsed)
            size = max(size, written)
            print(f"{elapsed:.1f} s{' without checkpoints' * never}", file=sys.stderr)
    if args.repeats:
        more = np.divide(times.ours, times.peer) - 1
        error = more.std(ddof=1) / len(more) ** 0.5 if len(more) > 1 else np.nan
        print(f"checkpoints add {more.mean():.1%} ± {error:.1%} (standard error)")
        print(
            duel.row(
                f"{Path(args.config).stem}, checkpoint every {args.every:g} s",
                f"{duel.spread(times.ours)} s, {size / 2**20:,.0f} MiB kept",
                f"no checkpoints {duel.spread(times.peer)} s",
                times.ratio,
                0.97,
            )
        )
    for _ in range(args.waited):
        elapsed, _, waited = seconds(args.config, args.every, WAITED)
        print(
            f"waited {waited:.2f} s for checkpoints, of {elapsed:.1f} s: "
            f"{waited / elapsed:.2%}"
        )


def turn_checkpoints_off() -> None:
    """Makes this process write no checkpoints."""
    Checkpoints.save_last = lambda self, *_: None  # type: ignore[method-assign]
    Checkpoints.save_params = lambda self, *_: None  # type: ignore[method-assign]


def wait_for_checkpoints(note: Path) -> None:
    """Makes this process wait for every checkpoint; writes the seconds to a file."""
    waited = 0.0

    def blocking(save: Any) -> Any:
        def save_now(self: Checkpoints, number: int, tree: Any, *rest: Any) -> None:
            nonlocal waited
            jax.block_until_ready((tree, *rest))  # running steps do not count
            start = time.perf_counter()
            save(self, number, tree, *rest)
            self.wait()
            waited += time.perf_counter() - start
            note.write_text(json.dumps(waited))

        return save_now

    Checkpoints.save_last = blocking(Checkpoints.save_last)  # type: ignore[method-assign]
    Checkpoints.save_params = blocking(  # type: ignore[method-assign]
        Checkpoints.save_params
    )


if __name__ == "__main__":
    workdir = [x.partition("=")[2] for x in sys.argv if x.startswith("--workdir=")]
    if workdir:  # a run, see `seconds`
        if NEVER in sys.argv:
            sys.argv.remove(NEVER)
            turn_checkpoints_off()
        if WAITED in sys.argv:
            sys.argv.remove(WAITED)
            wait_for_checkpoints(Path(workdir[0], "waited.json"))
        runpy.run_module("recjax.main", run_name="__main__")
    else:
        main()
