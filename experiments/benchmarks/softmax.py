"""Compares full softmax over a catalogue in chunks with a dense one.

    python -m experiments.benchmarks.softmax

Measures value and gradients by the number of items. Both sides keep freed memory in the
process, as recjax does. The dense softmax is not run if it needs more than the limit.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import duel
from recjax.losses.softmax import softmax
from recjax.runtime.host_memory import keep_memory

TARGETS, WIDTH = 6400, 64  # of 128 users with histories of 50
GIB = 2**30


def dense(
    queries_PxD: jax.Array,
    candidates_NxD: jax.Array,
    bias_N: jax.Array,
    targets_P: jax.Array,
    *rest: Any,
) -> jax.Array:
    """Computes the loss as it is usually written: all scores, and autodiff."""
    del rest
    scores_PxN = queries_PxD @ candidates_NxD.T + bias_N[None]
    target_Px1 = jnp.take_along_axis(scores_PxN, targets_P[:, None], axis=1)
    return jax.nn.logsumexp(scores_PxN, axis=1) - target_Px1[:, 0]


def compiled(loss: Callable[..., jax.Array], args: tuple[Any, ...]) -> Any:
    """Compiles the mean loss with gradients of queries, candidates and bias."""

    def mean(*args: Any) -> jax.Array:
        return loss(*args).mean()

    return jax.jit(jax.value_and_grad(mean, (0, 1, 2))).lower(*args).compile()


def inputs(num_items: int) -> tuple[Any, ...]:
    """Returns random arguments of a loss."""
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(TARGETS, WIDTH)).astype(np.float32)
    candidates = rng.normal(size=(num_items, WIDTH)).astype(np.float32) / 8
    targets = rng.integers(0, num_items, TARGETS)
    zero = np.zeros(num_items, np.float32)
    mask = np.ones(TARGETS, bool)
    return jax.device_put((queries, candidates, zero, targets, mask, zero))


def seconds(run: Any, args: tuple[Any, ...]) -> float:
    """Returns the seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - start


def main() -> None:
    """Prints a Markdown row for each catalogue size and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
    parser.add_argument("--items", type=int, nargs="+", default=sizes)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=12.0, help="GiB")
    parser.add_argument("--plot", type=Path, help="a PNG to write")
    args = parser.parse_args()
    keep_memory()
    found = []
    for num_items in args.items:
        arrays = inputs(num_items)
        ours, other = compiled(softmax, arrays), compiled(dense, arrays)
        temporary = [x.memory_analysis().temp_size_in_bytes for x in (ours, other)]
        possible = temporary[1] < args.limit * GIB
        if possible:  # warm both up, and see that they agree
            for a, b in zip(ours(*arrays), other(*arrays), strict=True):
                jax.tree.map(
                    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7),
                    a,
                    b,
                )
        else:
            jax.block_until_ready(ours(*arrays))
        times = duel.Times([], [])
        for _ in range(args.repeats):
            times.ours.append(seconds(ours, arrays))
            if possible:
                times.peer.append(seconds(other, arrays))
        found.append((num_items, temporary, times))
        del ours, other, arrays
        shown = [f"{bytes_ / 2**20:,.0f} MiB" for bytes_ in temporary]
        work = f"softmax over {num_items:,} items, {TARGETS:,} targets"
        mine = f"{duel.spread(times.ours)} s, {shown[0]}"
        if possible:
            theirs = f"dense {duel.spread(times.peer)} s, {shown[1]}"
            print(duel.row(work, mine, theirs, times.ratio, 0.83), flush=True)
        else:
            print(f"| {work} | {mine} | dense: {shown[1]}, not run | | | |")
    if args.plot:
        draw(found, args.plot)


def draw(found: list[tuple[int, list[int], duel.Times]], path: Path) -> None:
    """Plots time and memory by the size of the catalogue."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    sizes = [num_items for num_items, _, _ in found]
    for k, name in enumerate(("in chunks", "dense")):
        each = [(times.ours, times.peer)[k] for _, _, times in found]
        middle = [statistics.median(t) for t in each if t]  # the largest may be missing
        left.plot(sizes[: len(middle)], middle, "o-", label=name)
        memory = [temporary[k] / 2**20 for _, temporary, _ in found]
        right.plot(sizes, memory, "o-", label=name)
    left.set_ylabel("seconds, forward and backward")
    right.set_ylabel("MiB of temporaries")
    table = [4 * (WIDTH + 1) * n / 2**20 for n in sizes]
    right.plot(sizes, table, "k:", label="the table itself")
    for axes in (left, right):
        axes.set_xlabel("items")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"Full softmax, {TARGETS:,} targets, width {WIDTH}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
