"""What checkpoints cost: a whole run that saves against one that never does.

    python -m experiments.benchmarks.saves --config=configs/quickstart.py

Each pair runs the config from start to results twice, in processes and run directories
of their own: once as it is, once with every save left out. Beside the time from command
to exit, that of the processors is compared: it hears less of what else a machine does.
"""

import argparse
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks import duel
from recjax.checkpoint import Checkpoints

NEVER = "--never"
CHILDREN = resource.RUSAGE_CHILDREN


def seconds(config: str, every: float, never: bool) -> tuple[float, float, int]:
    """Seconds of a run from command to exit, of processors, bytes of checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.benchmarks.saves"]
        command += [NEVER] if never else []
        command += [f"--config={config}", f"--workdir={folder}/run"]
        command += [f"--config.train.checkpoint_seconds={every}"]
        start, before = time.perf_counter(), resource.getrusage(CHILDREN)
        subprocess.run(
            command, check=True, cwd=duel.ROOT, stdout=subprocess.DEVNULL, stderr=None
        )
        took, after = time.perf_counter() - start, resource.getrusage(CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        saved = Path(folder, "run", "checkpoints").rglob("*")
        return took, busy, sum(p.stat().st_size for p in saved if p.is_file())


def main() -> None:
    """Prints a markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--every", type=float, default=60.0, help="seconds")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    times, busy, size = duel.Times([], []), duel.Times([], []), 0
    for i in range(args.repeats):
        for never in (False, True) if i % 2 else (True, False):
            took, cpu, written = seconds(args.config, args.every, never)
            (times.peer if never else times.ours).append(took)
            (busy.peer if never else busy.ours).append(cpu)
            size = max(size, written)
            without = " without saves" * never
            print(f"{took:.1f} s, {cpu:.1f} of processors{without}", file=sys.stderr)
    for name, x in (("time", times), ("processor time", busy)):
        more = np.array([a / b - 1 for a, b in zip(x.ours, x.peer, strict=True)])
        error = more.std(ddof=1) / len(more) ** 0.5 if len(more) > 1 else np.nan
        print(
            f"{name}: saves add {more.mean():.2%} ± {error:.2%} (standard error), "
            f"median {np.median(more):.2%}, {len(more)} pairs",
            file=sys.stderr,
        )
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
