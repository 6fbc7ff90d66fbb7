"""What checkpoints cost: a whole run that saves against one that never does.

    python -m experiments.benchmarks.saves --config=configs/quickstart.py

Each pair runs the config from start to results twice, in processes and run directories
of their own: once as it is, once with every save left out.
"""

import argparse
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.benchmarks import duel
from recjax.checkpoint import Checkpoints

NEVER = "--never"


def seconds(config: str, every: float, never: bool) -> tuple[float, int]:
    """Seconds of a run from command to exit, and bytes of its checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.benchmarks.saves"]
        command += [NEVER] if never else []
        command += [f"--config={config}", f"--workdir={folder}/run"]
        command += [f"--config.train.checkpoint_seconds={every}"]
        start = time.perf_counter()
        subprocess.run(
            command, check=True, cwd=duel.ROOT, stdout=subprocess.DEVNULL, stderr=None
        )
        took = time.perf_counter() - start
        saved = Path(folder, "run", "checkpoints").rglob("*")
        return took, sum(p.stat().st_size for p in saved if p.is_file())


def main() -> None:
    """Prints a markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--every", type=float, default=60.0, help="seconds")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    times, size = duel.Times([], []), 0
    for i in range(args.repeats):
        for never in (False, True) if i % 2 else (True, False):
            took, written = seconds(args.config, args.every, never)
            (times.peer if never else times.ours).append(took)
            size = max(size, written)
            print(f"{took:.1f} s{' without saves' * never}", file=sys.stderr)
    print(
        duel.row(
            f"{Path(args.config).stem}, saved every {args.every:g} s",
            f"{duel.spread(times.ours)} s, {size / 2**20:,.0f} MiB kept",
            f"never saved {duel.spread(times.peer)} s",
            times.ratio,
            0.97,
        )
    )


def leave_saves_out() -> None:
    """In this process a save does nothing."""
    Checkpoints.save_last = lambda self, *_: None  # type: ignore[method-assign]
    Checkpoints.save_params = lambda self, *_: None  # type: ignore[method-assign]


if __name__ == "__main__":
    if any(arg.startswith("--workdir") for arg in sys.argv):  # a run, see `seconds`
        if NEVER in sys.argv:
            sys.argv.remove(NEVER)
            leave_saves_out()
        runpy.run_module("recjax.main", run_name="__main__")
    else:
        main()
