"""Compares packed rows with length buckets in the same encoder.

    python -m experiments.benchmarks.packing --data=DIR/amazon-industrial
    python -m experiments.benchmarks.packing --data=ml-100k

The full catalogue is arranged in rows and encoded by all layers, about 2,048 tokens
at a time. Buckets are multiples of eight tokens; a text is padded to the smallest
bucket that fits.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import duel
from experiments.benchmarks.encode import config_for
from recjax.common.param_paths import TEXT_PARAMS, FlatParams, unflatten_params
from recjax.config import base
from recjax.data.text.packing import Packing, Tokens, split_rows
from recjax.models.recommender import Recommender
from recjax.run.setup import open_run
from recjax.runtime.mesh import replicate

PIECE_TOKENS = 2048  # tokens that are encoded at a time


def packed_rows(tokens: Tokens, width: int) -> Iterator[Any]:
    """Yields rows of `width` tokens, each with as many texts as fit."""
    packed = Packing(tokens, width).pack(np.arange(len(tokens.lengths)))
    for _, part in split_rows(packed, PIECE_TOKENS // width):
        yield part


def buckets(tokens: Tokens, step: int = 8) -> Iterator[Any]:
    """Yields rows with one text each; all rows of a piece have the same width."""
    widths_N = -(-tokens.lengths // step) * step
    for width in np.unique(widths_N):
        (chosen_U,) = np.nonzero(widths_N == width)
        packed = Packing(tokens, int(width)).pack(chosen_U.astype(np.int32))
        for _, part in split_rows(packed, PIECE_TOKENS // int(width)):
            yield part


def main() -> None:
    """Prints a Markdown row for each width of packed rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="name or directory")
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    config = base.get_config()
    if Path(args.data).is_dir():
        config = config_for(args.data, args.max_tokens)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(config, Path(folder), time.perf_counter()) as (run, params),
    ):
        assert run.tokens is not None
        assert run.model.encoder_config is not None
        blocks = run.model.encoder_config.num_blocks - 1
        ids = replicate({"text": {"ids_T": run.tokens.ids}}, run.mesh)
        text = {p: x for p, x in params.items() if p.startswith(TEXT_PARAMS)}

        @jax.jit
        def encode(flat: FlatParams, packed: Any) -> jax.Array:
            return run.model.apply(
                {"params": unflatten_params(flat)},
                ids,
                packed,
                blocks,
                method=Recommender.encode_prefix,
            )

        layouts: dict[str, Callable[[], Iterator[Any]]] = {
            f"rows of {width}": functools.partial(packed_rows, run.tokens, width)
            for width in args.widths
        }
        layouts["buckets"] = functools.partial(buckets, run.tokens)
        seconds: dict[str, list[float]] = {name: [] for name in layouts}
        for _ in range(args.repeats + 1):
            for name, layout in layouts.items():
                start = time.perf_counter()
                for part in list(layout()):
                    encode(text, part).block_until_ready()
                seconds[name].append(time.perf_counter() - start)
        for name in list(layouts)[:-1]:
            # The first repeat includes compilation.
            times = duel.Times(seconds[name][1:], seconds["buckets"][1:])
            positions = sum(part.index_RxL.size for part in layouts[name]())
            full = int(run.tokens.lengths.sum()) / positions
            print(
                duel.row(
                    f"{Path(args.data).name}, {len(run.tokens.lengths):,} texts, "
                    f"{full:.0%} of positions filled",
                    f"{name}: {duel.spread(times.ours)} s",
                    f"buckets of 8: {duel.spread(times.peer)} s",
                    times.ratio,
                    1,
                )
            )


if __name__ == "__main__":
    main()
