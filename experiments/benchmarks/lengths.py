"""Compares batches of windows of similar length with batches that are padded to H.

    python -m experiments.benchmarks.lengths --data=ml-100k --history=200

Both train an id-only causal transformer with the full softmax for one epoch, in turn.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.benchmarks import duel
from experiments.benchmarks.rectools import config_for
from recjax.common.param_paths import FlatParams
from recjax.run.setup import open_run
from recjax.training.context import Run
from recjax.training.make_phase import make_phase


def make_epoch(run: Run, params: FlatParams, by_length: bool) -> Callable[[], float]:
    """Returns a function that trains for an epoch and returns its seconds."""
    with run.config.unlocked():
        run.config.train.by_length = by_length
    phase, state = make_phase(run, 0, run.config.train.phases[0], params, 0)
    batches = iter(phase.batches)

    def epoch() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(phase.batches.steps_per_epoch):
            state, metrics = phase.run_step(state, {}, next(batches))
        float(metrics["loss"])
        return time.perf_counter() - start

    return epoch


def main() -> None:
    """Prints a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="name or directory")
    parser.add_argument("--history", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    config = config_for(args.data, args.history)
    config.data.windows, config.train.batch_size = "all", args.batch_size
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(config, Path(folder), time.perf_counter()) as (run, params),
    ):
        epochs = [make_epoch(run, params, by_length) for by_length in (True, False)]
        pairs = [[epoch() for epoch in epochs] for _ in range(args.repeats + 1)]
        # The first pair includes compilation.
        ours, padded = np.array(pairs[1:]).T.tolist()
        times = duel.Times(ours, padded)
        lengths_R = np.minimum(run.data.train.lengths(), args.history)
    print(
        duel.row(
            f"one epoch of ids, H = {args.history}, {Path(args.data).name}, "
            f"{len(lengths_R):,} users, mean of {lengths_R.mean():.0f} events",
            f"by length {duel.spread(times.ours)} s",
            f"padded to H {duel.spread(times.peer)} s",
            times.ratio,
            1,
        )
    )


if __name__ == "__main__":
    main()
