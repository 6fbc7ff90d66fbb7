"""Clients of a service that send an event and ask for a list, again and again.

    python -m experiments.benchmarks.load_client --port=8000 --clients=8 --cycles=1000

Prints one JSON object: milliseconds of every cycle, and how many lists were stale. It
imports neither JAX nor recjax, so that the clients take little of the processor.
"""

import argparse
import http.client
import json
import random
import threading
import time
from typing import Any

EVENTS_OF_A_USER = 20  # then the client goes on as another user


class Client:
    """One connection, kept open, and the cycles that it has made.

    Attributes:
      event_ms: milliseconds until each event was acknowledged.
      cycle_ms: milliseconds from sending each event to its list.
      stale: lists that did not reflect the event before them.
      failed: answers other than 200.
    """

    def __init__(self, port: int, number: int, num_items: int):
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._number = number
        self._items = random.Random(number)
        self._num_items = num_items
        self.event_ms: list[float] = []
        self.cycle_ms: list[float] = []
        self.stale = self.failed = 0

    def cycle(self, turn: int) -> None:
        """Sends an event and asks for a list of the same user."""
        user = f"client {self._number} {turn // EVENTS_OF_A_USER}".replace(" ", "-")
        item = f"i{self._items.randrange(self._num_items)}"
        start = time.perf_counter()
        body = {"user": user, "items": [{"id": item}]}
        event = self._request("POST", "/feedback", body)
        stored = time.perf_counter()
        found = self._request("GET", f"/recommend/{user}?k=10")
        end = time.perf_counter()
        if event is None or found is None:
            self.failed += 1
            return
        self.event_ms.append(1000 * (stored - start))
        self.cycle_ms.append(1000 * (end - start))
        names = [each["id"] for each in found["items"]]
        self.stale += item in names or found["last_event"] < event["sequence"]

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"} if body else {}
        content = json.dumps(body) if body else None
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        return json.loads(raw) if answer.status == 200 else None


def run_clients(port: int, number: int, cycles: int, num_items: int) -> dict[str, Any]:
    """Runs clients in threads; returns their times and counts.

    Args:
      port: port of the service on this machine.
      number: number of clients.
      cycles: cycles of each client.
      num_items: size N of the catalogue, whose ids are i0 to i(N-1).
    """
    clients = [Client(port, client, num_items) for client in range(number)]
    barrier = threading.Barrier(number + 1)

    def work(client: Client) -> None:
        barrier.wait()
        for turn in range(cycles):
            client.cycle(turn)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return {
        "seconds": time.perf_counter() - start,
        "event_ms": [x for client in clients for x in client.event_ms],
        "cycle_ms": [x for client in clients for x in client.cycle_ms],
        "stale": sum(client.stale for client in clients),
        "failed": sum(client.failed for client in clients),
    }


def main() -> None:
    """Runs the clients, and prints what they measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--items", type=int, required=True)
    args = parser.parse_args()
    found = run_clients(args.port, args.clients, args.cycles, args.items)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
