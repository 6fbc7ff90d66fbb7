"""Seconds that each part of a run takes, with compilation counted separately."""

import time
from typing import NamedTuple

from recjax.runtime.compiler import Compiler


class StartTime(NamedTuple):
    """The start of a part: `time.perf_counter`, and the seconds compiled before it."""

    clock: float
    compile_seconds: float


class Timer:
    """Adds up the seconds of a run by part, over all of its processes.

    The compiler's seconds are counted as the part "compile". `start_time` is when this
    process started, by `time.perf_counter`.
    """

    def __init__(self, compiler: Compiler, start_time: float):
        self._compiler = compiler
        self._seconds: dict[str, float] = {}
        self.process_start = StartTime(start_time, 0.0)

    def start(self) -> StartTime:
        """Returns the start of a part, for `add_since`."""
        return StartTime(time.perf_counter(), self._compiler.seconds)

    def add(self, part: str, seconds: float) -> None:
        """Adds seconds to a part; "total" holds those of earlier processes."""
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    def add_since(self, part: str, start: StartTime) -> None:
        """Adds the time since `start`, counting compilation separately."""
        now = self.start()
        compiled = now.compile_seconds - start.compile_seconds
        self.add(part, now.clock - start.clock - compiled)
        self.add("compile", compiled)

    def totals(self) -> dict[str, float]:
        """Seconds by part, and of the run in total."""
        parts = dict(self._seconds)
        earlier = parts.pop("total", 0.0)
        now = time.perf_counter()
        return {**parts, "total": earlier + now - self.process_start.clock}
