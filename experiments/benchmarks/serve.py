"""The measured side of `duel.Worker`. Peers run it too, so it needs no recjax."""

import json
import sys
from collections.abc import Callable
from typing import Any


def serve(about: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Says what it is, then answers every line with a measurement."""
    print(f"\n{json.dumps(about)}", flush=True)  # a progress bar may stand in the line
    for _ in sys.stdin:
        print(f"\n{json.dumps(measure())}", flush=True)
