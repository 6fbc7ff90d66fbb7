"""Exact search of the best inner products by faiss, see `top_k`."""

import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from experiments.benchmarks.serve import serve

K, SEARCHES = 100, 20


def main(folder: Path) -> None:
    """Measures on demand."""
    vectors, queries = (np.load(folder / f"{x}.npy") for x in ("vectors", "queries"))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search() -> dict[str, Any]:
        start = time.perf_counter()
        for _ in range(SEARCHES):
            index.search(queries, K)
        return {"seconds": (time.perf_counter() - start) / SEARCHES}

    search()
    serve({}, search)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
