"""Progress bars on a terminal, and lines of progress in a file."""

import io
import sys
from typing import Any, TextIO

from tqdm import tqdm

REDRAW_SECONDS = 0.2  # between two states of a bar on a terminal
LINE_SECONDS = 10.0  # between two lines in a file
LINE_FORMAT = (
    "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed}, {remaining} left{postfix}"
)


def make_bar(total: int, done: int, name: str, unit: str, *, active: bool) -> Any:
    """Makes a progress bar on standard output, or lines if it is not a terminal.

    Args:
      total: number of units.
      done: how many of them are done.
      name: shown before the bar.
      unit: what is counted, in the singular.
      active: whether anything is shown.
    """
    terminal = sys.stdout.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=name,
        unit=unit,
        file=sys.stdout if terminal else _Lines(sys.stdout),
        disable=not active,
        mininterval=REDRAW_SECONDS if terminal else LINE_SECONDS,
        bar_format=None if terminal else LINE_FORMAT,
    )


class _Lines(io.TextIOBase):
    """Writes each state of a bar as a line of its own, without control characters."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> int:
        """Writes a state of the bar, unless it is the last one again."""
        state = text.strip()
        if state and state != self._last:
            self._stream.write(state + "\n")
            self._stream.flush()
            self._last = state
        return len(text)
