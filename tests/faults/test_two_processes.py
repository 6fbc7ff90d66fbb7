"""Two processes of one run: `pytest -m faults`."""

import re
import shutil
import signal
import socket

import pytest

from recjax.common.errors import PROCESS_LOST, STOPPED
from tests.faults import runs

pytestmark = pytest.mark.faults


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_two(data, workdir, env, configs=("config", "config")):
    port = free_port()
    common = (f"--coordinator=127.0.0.1:{port}", "--processes=2")
    common += ("--config.mesh.data=2", "--config.train.checkpoint_seconds=0.3")
    return [
        runs.start(data, workdir, *common, f"--process={i}", config=config, **env)
        for i, config in enumerate(configs)
    ]


def end(processes, timeout=600):
    return [p.wait(timeout=timeout) for p in processes]


@pytest.fixture(scope="module")
def uninterrupted_two(data, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert end(start_two(data, workdir, cache)) == [0, 0], runs.output(workdir)
    return workdir


@pytest.mark.parametrize("which", [0, 1])
def test_sigterm_to_one_stops_both_after_the_same_step(
    data, cache, uninterrupted_two, tmp_path, which
):
    workdir = tmp_path / "run"
    processes = start_two(data, workdir, cache)
    due = lambda: runs.last_step(workdir) >= 40  # noqa: E731
    assert runs.kill_when(processes[which], due, signal.SIGTERM), runs.output(workdir)
    assert end(processes, 60) == [STOPPED, STOPPED], runs.output(workdir)
    assert end(start_two(data, workdir, cache)) == [0, 0], runs.output(workdir)
    assert re.search(r"resuming after epoch \d+", runs.output(workdir))
    runs.assert_same(workdir, uninterrupted_two)


@pytest.mark.parametrize("which", [0, 1])
def test_kill_9_of_one_stops_the_other(data, cache, uninterrupted_two, tmp_path, which):
    workdir = tmp_path / "run"
    processes = start_two(data, workdir, cache)
    assert runs.kill_when(processes[which], lambda: runs.last_step(workdir) >= 60)
    codes = end(processes, 150)
    assert codes[which] == -signal.SIGKILL
    # JAX itself aborts where the first one, which coordinates, does not answer.
    left = {PROCESS_LOST} | ({-signal.SIGABRT} if which == 0 else set())
    assert codes[1 - which] in left, runs.output(workdir)
    messages = ("another process of the run is gone", "another task died")
    assert any(message in runs.output(workdir) for message in messages)
    assert end(start_two(data, workdir, cache)) == [0, 0], runs.output(workdir)
    runs.assert_same(workdir, uninterrupted_two)


def test_a_failed_save_of_one_is_repeated_by_both(
    data, cache, uninterrupted_two, tmp_path
):
    workdir = tmp_path / "run"
    processes = start_two(data, workdir, cache, ("failing_save", "config"))
    assert end(processes, 300) == [0, 0], runs.output(workdir)
    assert "params/1: NOT SAVED: no space left" in runs.output(workdir)
    runs.assert_same(workdir, uninterrupted_two)


def test_both_exit_without_a_valid_checkpoint(data, cache, uninterrupted_two, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted_two, workdir)
    (workdir / "results.json").unlink()
    for manifest in workdir.glob("checkpoints/params/*/manifest.json"):
        manifest.write_text("{}")
    assert end(start_two(data, workdir, cache), 120) == [2, 2], runs.output(workdir)
    assert (
        runs.output(workdir).count(
            "every checkpoint that the run could resume from is damaged"
        )
        == 2
    )
