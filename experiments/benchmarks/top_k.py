"""Compares the ranking of a service with exact search of faiss and ONNX Runtime.

    python -m experiments.benchmarks.top_k --items=1000000 --queries 1 8

Ours ranks histories: user tower, scores of all items with their biases, seen items left
out, top 100. The peers get the query vectors and search for the top 100 only.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import duel
from experiments.benchmarks.serve import serve
from experiments.benchmarks.service import WIDTH, random_model
from recjax.inference.model import Model
from recjax.serving.live_catalogue import LiveCatalogue, Query

K = 100
PEERS = ("faiss_top_k", "onnxruntime_top_k")
GOALS = {"faiss_top_k": 2.5, "onnxruntime_top_k": None}
SEARCHES = 20  # in one measurement


def work(args: argparse.Namespace) -> None:
    """Writes the input of the peer to the folder, then measures our side."""
    model = Model(random_model(args.items))
    rng = np.random.default_rng(1)
    vectors = model.parts.vectors.candidates_NxD
    queries = rng.standard_normal((args.number, WIDTH), np.float32)
    np.save(args.folder / "vectors.npy", vectors)
    np.save(args.folder / "queries.npy", queries)
    live = LiveCatalogue(model, spare=0)
    histories = rng.integers(args.items, size=(args.number, 20))
    requests = [Query(history, history, K) for history in histories]

    def search() -> dict[str, Any]:
        start = time.perf_counter()
        for _ in range(SEARCHES):
            live.rank(requests)
        return {"seconds": (time.perf_counter() - start) / SEARCHES}

    search()
    serve({}, search)


def main() -> None:
    """Measures all numbers of queries, or is the worker of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        work(args)
        return
    for number in args.queries:
        for peer in PEERS:
            with duel.workers("top_k", peer, "search", f"--number={number}") as pair:
                times = duel.duel(*pair)
            name = f"top {K} of {args.items:,} items, {number} queries"
            ours, theirs = (
                f"{duel.spread([1000 * x for x in seconds])} ms"
                for seconds in (times.ours, times.peer)
            )
            tool = peer.removesuffix("_top_k")
            line = duel.row(name, ours, f"{tool} {theirs}", times.ratio, GOALS[peer])
            print(line, flush=True)


if __name__ == "__main__":
    main()
