"""Measures how long a service takes to add items by their texts while it makes lists.

    python -m experiments.benchmarks.new_items --model=runs/quickstart --items=1000

The texts are drawn from the words of the model's own catalogue, with the lengths of its
texts. One client asks for lists all the time. In the end every new item is found in a
list from which the old catalogue is excluded.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

import recjax
from experiments.benchmarks import duel
from experiments.benchmarks.service import ServiceProcess, busy_seconds
from experiments.live.http_client import HttpClient
from recjax.common.errors import UserError
from recjax.serving.bodies import MAX_HISTORY, MAX_ITEMS

K = 100
IDLE_LISTS = 200


def draw_texts(texts: list[str], number: int) -> list[str]:
    """Draws texts with the words and the numbers of words of some given ones."""
    rng = np.random.default_rng(0)
    words = np.array([word for text in texts for word in text.split()])
    lengths = rng.choice([len(text.split()) for text in texts], number)
    return [" ".join(rng.choice(words, max(length, 1))) for length in lengths]


class Listener(threading.Thread):
    """Asks for lists until it is stopped.

    Attributes:
      milliseconds: times of the lists.
    """

    def __init__(self, port: int, item: str):
        super().__init__(daemon=True)
        self.milliseconds: list[float] = []
        self.stopped = threading.Event()
        self._client = HttpClient(port)
        self._body = {"history": [item], "k": 10}

    def run(self) -> None:
        """Asks for lists."""
        while not self.stopped.is_set():
            start = time.perf_counter()
            self._client.post("/recommend", self._body)
            self.milliseconds.append(1000 * (time.perf_counter() - start))
        self._client.close()


def count_recommended(client: HttpClient, old: list[str], new: list[str]) -> int:
    """Counts the new items that appear in lists without the old ones."""
    found: set[str] = set()
    while True:
        body = {"history": [old[0]], "k": K, "exclude": [*old, *found]}
        listed = {item["id"] for item in client.post("/recommend", body)["items"]}
        if not listed:
            return len(found & set(new))
        found |= listed


def main() -> None:
    """Measures, and prints a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a finished run with texts")
    parser.add_argument("--items", type=int, default=1000, help="new items (1000)")
    args = parser.parse_args()
    try:
        items = recjax.load(args.model).items
    except UserError as e:
        sys.exit(f"error: {e}")
    if not 1 <= args.items <= MAX_ITEMS:
        sys.exit(f"error: --items: {args.items} is not from 1 to {MAX_ITEMS}")
    if len(items) + args.items > MAX_HISTORY:
        sys.exit(f"error: --model: has more than {MAX_HISTORY - args.items:,} items")
    old, texts = items["id"].to_list(), draw_texts(items["text"].to_list(), args.items)
    new = [f"new {number}" for number in range(args.items)]
    bodies = [
        {"id": name, "text": text, "title": text}
        for name, text in zip(new, texts, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        service = ServiceProcess(Path(args.model), f"{folder}/events.sqlite")
        try:
            client = HttpClient(service.port)
            for _ in range(IDLE_LISTS):
                client.post("/recommend", {"history": [old[0]], "k": 10})
            listener = Listener(service.port, old[0])
            busy, own = busy_seconds(), time.process_time() + service.cpu_seconds()
            start = time.perf_counter()
            listener.start()
            client.post("/items", {"items": bodies})
            seconds = time.perf_counter() - start
            listener.stopped.set()
            listener.join()
            own = time.process_time() + service.cpu_seconds() - own
            others = max(busy_seconds() - busy - own, 0) / seconds
            others /= os.cpu_count() or 1
            recommended = count_recommended(client, old, new)
            client.close()
        finally:
            service.close()
    middle, tail = np.percentile(listener.milliseconds, [50, 99])
    print(f"{duel.machine()}; jax {jax.__version__}\n")
    print("| new items | seconds | goal | lists meanwhile | p50 / p99, ms ", end="")
    print(f"| can be recommended | others |\n{7 * '|---'}|")
    print(
        f"| {args.items:,} | {seconds:.1f} | 6 | {len(listener.milliseconds):,} "
        f"| {middle:.0f} / {tail:.0f} | {recommended:,} | {others:.0%} |"
    )


if __name__ == "__main__":
    main()
