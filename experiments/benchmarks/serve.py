"""The loop of a process measured by `duel.Worker`; it does not import recjax."""

import json
import sys
from collections.abc import Callable
from typing import Any


def serve(about: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Prints the description, then answers every input line with a measurement."""
    # A progress bar may have begun the line.
    print(f"\n{json.dumps(about)}", flush=True)
    for _ in sys.stdin:
        print(f"\n{json.dumps(measure())}", flush=True)
