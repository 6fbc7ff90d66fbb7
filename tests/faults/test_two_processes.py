"""Two processes of one run: `pytest -m faults`."""

import re
import signal
import socket

import pytest

from recjax.errors import STOPPED
from tests.faults import runs

pytestmark = pytest.mark.faults


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_two(data, workdir, env):
    port = free_port()
    common = (f"--coordinator=127.0.0.1:{port}", "--processes=2")
    common += ("--config.mesh.data=2", "--config.train.checkpoint_seconds=0.3")
    return [
        runs.start(data, workdir, *common, f"--process={i}", **env) for i in range(2)
    ]


def end(processes, timeout=600):
    return [p.wait(timeout=timeout) for p in processes]


@pytest.fixture(scope="module")
def whole(data, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert end(start_two(data, workdir, cache)) == [0, 0], runs.said(workdir)
    return workdir


def last_step(workdir):
    return max((r["step"] for r in runs.records(workdir)), default=0)


@pytest.mark.parametrize("which", [0, 1])
def test_sigterm_to_one_stops_both_after_the_same_step(
    data, cache, whole, tmp_path, which
):
    workdir = tmp_path / "run"
    processes = start_two(data, workdir, cache)
    due = lambda: last_step(workdir) >= 40  # noqa: E731
    assert runs.kill_when(processes[which], due, signal.SIGTERM), runs.said(workdir)
    assert end(processes, 60) == [STOPPED, STOPPED], runs.said(workdir)
    assert end(start_two(data, workdir, cache)) == [0, 0], runs.said(workdir)
    assert re.search(r"resuming after epoch \d+", runs.said(workdir))
    runs.assert_same(workdir, whole)


@pytest.mark.parametrize("which", [0, 1])
def test_kill_9_of_one_stops_the_other(data, cache, whole, tmp_path, which):
    workdir = tmp_path / "run"
    processes = start_two(data, workdir, cache)
    assert runs.kill_when(processes[which], lambda: last_step(workdir) >= 60)
    codes = end(processes, 150)
    assert codes[which] == -signal.SIGKILL
    assert codes[1 - which] != 0, runs.said(workdir)
    assert end(start_two(data, workdir, cache)) == [0, 0], runs.said(workdir)
    runs.assert_same(workdir, whole)
