"""SIGTERM and SIGINT finish the step, save and end the run; a second one ends it."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recjax.common.errors import Stopped
from recjax.runtime.processes import all_processes

NOTHING, SAVE, STOP = range(3)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
DEBOUNCE_SECONDS = 0.5  # seconds between two signals that are not one


class Signals:
    """What the process was asked by a signal.

    Attributes:
      stop: whether it shall stop.
    """

    def __init__(self) -> None:
        self.stop, self._deferred = False, False

    @contextlib.contextmanager
    def install_handlers(self) -> Iterator[None]:
        """While this lasts a signal stops the run; outside it does what it did."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        out, into = os.pipe()
        os.set_blocking(into, False)
        threading.Thread(
            target=_exit_on_second_signal, args=(out,), daemon=True
        ).start()
        before = {kind: signal.signal(kind, self._handle) for kind in SIGNALS}
        woken = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for kind, handler in before.items():
                signal.signal(kind, handler)
            os.close(into)

    @contextlib.contextmanager
    def defer_signals(self) -> Iterator[None]:
        """While this lasts a signal is only noted; at its end it counts.

        Raises:
          Stopped: a signal came, to this process or another one of the run.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if not all_processes(not self.stop):
            raise Stopped(saved=True)

    def _handle(self, number: int, frame: Any) -> None:
        del number, frame
        if self.stop:
            return
        self.stop = True
        # Several processes stop only where all of them look.
        if not self._deferred and jax.process_count() == 1:
            raise Stopped(saved=True)


def _exit_on_second_signal(signals: int) -> None:
    """Ends the process at the second signal, whatever it is busy with.

    Not where it comes with the first: some programs that stop others send two.
    """
    with open(signals, "rb", buffering=0) as pipe:
        first: float | None = None
        while byte := pipe.read(1):
            if byte[0] not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
            elif now - first > DEBOUNCE_SECONDS:
                print("second signal: leaving at once", file=sys.stderr, flush=True)
                os._exit(128 + byte[0])


class PreemptionSync:
    """What a process asks of all the others in a step: to save, or to stop.

    All see it with the results of that step, and so do the same after the same step.

    Args:
      signals: of this process.
      mesh: of the run.
      seconds: between two saves; the first process's clock counts.
    """

    def __init__(self, signals: Signals, mesh: Mesh, seconds: float):
        self.signals, self.seconds = signals, seconds
        placed = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

        def every(what: int) -> jax.Array:
            whole = np.full(mesh.size, what, np.int32)
            return jax.make_array_from_callback(
                whole.shape, placed, lambda part: whole[part]
            )

        self._arrays = [every(what) for what in (NOTHING, SAVE, STOP)]
        self.saved()

    def saved(self) -> None:
        """A save has begun: the clock starts again."""
        self._since = time.perf_counter()

    def request(self) -> jax.Array:
        """requests_M, for the next step."""
        if self.signals.stop:
            return self._arrays[STOP]
        waited = time.perf_counter() - self._since
        due = not jax.process_index() and waited >= self.seconds
        return self._arrays[SAVE if due else NOTHING]
