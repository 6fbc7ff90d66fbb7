"""The first signal is deferred, a second one ends the process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from recjax.runtime.signals import DEBOUNCE_SECONDS, SIGNALS

RESET = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
BUSY = """
import time
from recjax.runtime.signals import Signals

signals = Signals()
with signals.install_handlers(), signals.defer_signals():
    print("busy", flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)
"""


@pytest.fixture
def busy(request):
    """A process that defers signals; the parameter is a command to start it with."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = getattr(request, "param", [])
    # As in a terminal, also if the tests were started by nohup.
    code = BUSY if command else RESET + BUSY
    process = subprocess.Popen(
        [*command, sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "busy\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_second_signal_exits_at_once(busy, kind):
    busy.send_signal(kind)
    time.sleep(DEBOUNCE_SECONDS + 0.5)
    assert busy.poll() is None
    busy.send_signal(kind)
    assert busy.wait(timeout=20) == 128 + kind
    assert busy.stderr.read() == "second signal: exiting at once\n"


def test_two_signals_at_once_are_one(busy):
    for kind in (signal.SIGTERM, signal.SIGINT):  # two equal signals may arrive as one
        busy.send_signal(kind)
    time.sleep(1.5)
    assert busy.poll() is None


def test_all_signals_that_stop_jobs_are_handled():
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1} == {*SIGNALS}


@pytest.mark.parametrize("busy", [["nohup"]], indirect=True)
def test_a_closed_terminal_does_not_stop_what_nohup_started(busy):
    for _ in range(2):
        busy.send_signal(signal.SIGHUP)
        time.sleep(DEBOUNCE_SECONDS + 0.5)
    assert busy.poll() is None
