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
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recjax.common.errors import Stopped
from recjax.runtime.mesh import replicated
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
    """Makes all processes of a run save or stop after the same step.

    A signal reaches one process only, and clocks differ. Every process calls `agree`
    once after each step; the largest request of all counts. With several processes it
    is computed on the devices and read one step later, so that it delays no step.

    Args:
      signals: of this process.
      mesh: of the run.
      seconds: between two checkpoints, by the clock of the first process.
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
