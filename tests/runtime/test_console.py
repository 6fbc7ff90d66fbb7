"""Tests of a console that goes away, and of the end of a process."""

import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.unit

TALK = """
import sys
from pathlib import Path
from recjax.runtime.console import keep_console
keep_console()
for number in range(20_000):
    print("line", number, file={stream})
    sys.stdout.flush()
Path({path!r}).write_text("done")
"""
HANG = """
import threading, time
from recjax.runtime.console import keep_console, exit_soon
keep_console()
threading.Thread(target=time.sleep, args=[300]).start()
print("the last message")
exit_soon({code})
"""


@pytest.mark.parametrize("redirect", ["| head -1", ">&-", "2>&- >&-", "> /dev/full"])
@pytest.mark.parametrize("stream", ["sys.stdout", "sys.stderr"])
def test_a_program_goes_on_without_a_console(tmp_path, redirect, stream):
    path = tmp_path / "out"
    script = tmp_path / "talk.py"
    script.write_text(TALK.format(stream=stream, path=str(path)))
    command = f"{sys.executable} {script} {redirect}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        check=False,
        capture_output=True,
        text=True,
    )
    assert path.read_text() == "done"
    assert done.returncode == 0
    assert "Error" not in done.stderr


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_hanging_thread_does_not_delay_the_end(code):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANG.format(code=code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert time.monotonic() - start < 60
    assert (done.returncode, done.stdout) == (code, "the last message\n")


RESULT = """
import sys
from recjax.runtime.console import keep_console
keep_console(is_result=True)
try:
    for number in range(20_000):
        print("line", number)
    sys.stdout.flush()
except OSError as e:
    print(e.strerror, e.filename, file=sys.stderr)
    sys.exit(2)
"""
IMPORTS = """
import os, signal
from recjax.runtime.console import exit_on_interrupt
with exit_on_interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
    except BaseException:
        print("swallowed")
print("went on")
"""


@pytest.mark.parametrize(
    ("redirect", "code", "error"),
    [
        ("> /dev/full", 2, "No space left on device standard output\n"),
        ("| head -1", 0, ""),
        (">&-", 0, ""),
    ],
)
def test_a_result_that_cannot_be_written_is_an_error(redirect, code, error):
    command = f"{sys.executable} -c '{RESULT}' {redirect}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, error)


def test_an_interrupt_during_the_imports_is_not_swallowed():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted\n"
