"""The loop of a process measured by `duel.Worker`; it does not import recjax."""

import json
import sys
from collections.abc import Callable
from typing import Any


def serve(about: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Prints the description, then answers every input line with a measurement."""
    print(
        f"\n{json.dumps(about)}", flush=True
    )  # a progress bar may have begun the line
    for _ in sys.stdin:
        print(f"\n{json.dumps(measure())}", flush=True)
