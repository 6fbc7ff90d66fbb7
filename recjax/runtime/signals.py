"""Signals that end a run: the first after its step, a second one at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recjax.common.errors import Stopped
from recjax.runtime.mesh import replicated
from recjax.runtime.processes import all_processes

NOTHING, SAVE, STOP = range(3)  # requests; of several the largest wins
# SIGHUP: the terminal is closed. SIGUSR1: Slurm's warning before a job's time is over.
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
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

        Does nothing outside the main thread, because Python allows handlers only there.
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
        previous = {
            number: signal.signal(number, self._handle)
            for number in SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN  # as nohup does with SIGHUP
        }
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
      read_end: read end of a pipe that receives the number of each signal as a byte.
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
    """Makes all processes of a run save or stop after the same step.

    A signal reaches one process only, and clocks differ. Every process calls `agree`
    once after each step; the largest request of all counts. With several processes it
    is computed on the devices and read one step later, so that it delays no step.

    Args:
      signals: the signals of this process.
      mesh: the mesh of the run.
      seconds: time between two checkpoints, by the clock of the first process.
    """

    def __init__(self, signals: Signals, mesh: Mesh, seconds: float):
        self.signals, self.seconds = signals, seconds
        self._several = jax.process_count() > 1
        self._requests = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=replicated(mesh))
        self._num_devices = mesh.size
        self.reset()

    def reset(self) -> None:
        """Starts the clock again and forgets pending requests: a save has begun."""
        self._since = time.perf_counter()
        self._pending: jax.Array | None = None

    def agree(self) -> int:
        """Returns what all processes do now: `NOTHING`, `SAVE` or `STOP`."""
        if not self._several:
            return self._own()
        own_M = np.full(self._num_devices, self._own(), np.int32)
        requests_M = jax.make_array_from_callback(
            own_M.shape, self._requests, lambda part: own_M[part]
        )
        agreed, self._pending = self._pending, self._largest(requests_M)
        return NOTHING if agreed is None else int(agreed)

    def _own(self) -> int:
        """Returns the request of this process."""
        if self.signals.stop:
            return STOP
        is_first = jax.process_index() == 0
        due = time.perf_counter() - self._since >= self.seconds
        return SAVE if is_first and due else NOTHING
