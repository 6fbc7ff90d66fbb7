"""SIGTERM and SIGINT: the first ends the run after its step, a second one at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recjax.common.errors import Stopped
from recjax.runtime.processes import all_processes

NOTHING, SAVE, STOP = range(3)  # requests; of several the largest wins
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Some programs that stop others send two signals at a time: closer ones count as one.
DEBOUNCE_SECONDS = 0.5


class Signals:
    """Handles the signals that ask this process to stop.

    Attributes:
      stop: whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.stop = False
        self._deferred = False

    @contextlib.contextmanager
    def install_handlers(self) -> Iterator[None]:
        """Installs the handlers inside the block, restores the previous ones after it.

        Does nothing in other threads than the main one, where Python forbids it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Python runs handlers between bytecodes of the main thread, which may be busy
        # in XLA for minutes; the pipe wakes another thread for the second signal.
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        threading.Thread(
            target=_exit_on_second_signal, args=(read_end,), daemon=True
        ).start()
        previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous_fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(write_end)  # ends the thread

    @contextlib.contextmanager
    def defer_signals(self) -> Iterator[None]:
        """Only records signals inside the block, and acts on them at its end.

        Raises:
          Stopped: a signal has arrived, at this process or at another one of the run.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if not all_processes(not self.stop):
            raise Stopped(saved=True)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.stop:
            return
        self.stop = True
        # One of several processes must not stop alone: the others would wait for it.
        if not self._deferred and jax.process_count() == 1:
            raise Stopped(saved=True)


def _exit_on_second_signal(read_end: int) -> None:
    """Exits immediately on a second signal, whatever the main thread is doing.

    Args:
      read_end: of the pipe that receives a byte, the signal's number, for each signal.
    """
    with open(read_end, "rb", buffering=0) as pipe:
        first: float | None = None
        while byte := pipe.read(1):
            if byte[0] not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
            elif now - first > DEBOUNCE_SECONDS:
                print("second signal: exiting at once", file=sys.stderr, flush=True)
                os._exit(128 + byte[0])


class PreemptionSync:
    """Broadcasts save and stop requests to all processes.

    A request is an input of the train step, and its maximum over all processes an
    output: all processes see it with the results of the same step, and save or stop
    after the same step.

    Args:
      signals: of this process.
      mesh: of the run.
      seconds: between two saves; the clock of the first process decides.
    """

    def __init__(self, signals: Signals, mesh: Mesh, seconds: float):
        self.signals = signals
        self.seconds = seconds
        sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

        def fill(request: int) -> jax.Array:
            full = np.full(mesh.size, request, np.int32)
            return jax.make_array_from_callback(
                full.shape, sharding, lambda index: full[index]
            )

        # Made once, so that a step does not wait for a transfer.
        self._arrays = [fill(request) for request in (NOTHING, SAVE, STOP)]
        self.saved()

    def saved(self) -> None:
        """Restarts the clock, because a save has begun."""
        self._last_save = time.perf_counter()

    def request(self) -> jax.Array:
        """requests_M: this process's request for the next step, one per device."""
        if self.signals.stop:
            return self._arrays[STOP]
        elapsed = time.perf_counter() - self._last_save
        due = not jax.process_index() and elapsed >= self.seconds
        return self._arrays[SAVE if due else NOTHING]
