"""Progress bars on a terminal, and lines of progress in a file."""

import io
import sys
from typing import Any, TextIO

from tqdm import tqdm

REDRAW_SECONDS = 0.2  # between two states of a bar on a terminal
LINE_SECONDS = 10.0  # between two lines in a file, at least
MAX_LINE_SECONDS = 300.0
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
    shared = {
        "total": total,
        "initial": done,
        "desc": name,
        "unit": unit,
        "disable": not active,
    }
    if sys.stdout.isatty():
        return tqdm(**shared, file=sys.stdout, mininterval=REDRAW_SECONDS)
    return _LineBar(**shared, file=Lines(sys.stdout), bar_format=LINE_FORMAT)


class _LineBar(tqdm):
    """A progress bar that prints lines: few enough to read the log of a run of hours.

    The first comes after ten seconds, the next ones at intervals of a quarter of the
    elapsed time, from 10 to 300 seconds, and one at the end. A bar that ends before the
    first line, and has no values to show, prints none.
    """

    _shown = 0.0  # elapsed seconds at the last line
    _is_closing = False

    def close(self) -> None:
        """Shows the last state."""
        self._is_closing = True
        super().close()

    def display(self, *args: Any, **kwargs: Any) -> bool:
        """Shows the state, unless it has been shown a short time ago."""
        if not hasattr(self, "start_t"):  # while it is made
            return False
        elapsed = self._time() - self.start_t
        pause = min(max(LINE_SECONDS, elapsed / 4), MAX_LINE_SECONDS)
        if not self._is_closing and elapsed - self._shown < pause:
            return False
        if not self._shown and not self.postfix and self._is_closing:
            return False
        self._shown = elapsed
        return bool(super().display(*args, **kwargs))


class Lines(io.TextIOBase):
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
