"""Jobs: their cores, their output and their end."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.sweeping.pool import Job, Pool
from recjax.runtime.provenance import usable_cores


def test_the_last_line_is_from_this_attempt(tmp_path):
    pool = Pool(1)
    for code, last in (("print('first')", "first"), ("", "(no output)")):
        job = Job("x", [sys.executable, "-c", code], tmp_path / "log")
        pool.start(job)
        while not pool.ended():
            time.sleep(0.01)
        assert job.last_line() == last


@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")
def test_jobs_have_their_own_cores(tmp_path):
    said = "import os; print(sorted(os.sched_getaffinity(0)))"
    pool = Pool(2)
    for name in "ab":
        pool.start(Job(name, [sys.executable, "-c", said], tmp_path / name))
    assert not pool.free
    ended = []
    while pool.running:
        ended += [code for _, code in pool.ended()]
    assert ended == [0, 0]
    one, other = (set(json.loads((tmp_path / name).read_text())) for name in "ab")
    assert len(one) == len(other) == len(usable_cores()) // 2
    assert not one & other


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_jobs_end_with_the_sweep(tmp_path):
    """Even if the sweep is killed."""
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = (
        "import sys, time; from pathlib import Path; "
        "from experiments.sweeping.pool import Job, Pool; "
        f"Pool(1).start(Job('x', [sys.executable, '-c', {sleeper!r}], "
        f"Path({str(tmp_path / 'log')!r}))); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    log, until = tmp_path / "log", time.monotonic() + 60
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < until
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    status = Path("/proc", log.read_text().strip(), "stat")
    until = time.monotonic() + 20
    with contextlib.suppress(OSError):  # it is gone
        while status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() < until
            time.sleep(0.05)
