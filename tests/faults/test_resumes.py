"""Resuming from checkpoints that are damaged or of another run: `pytest -m faults`.

All tests start from one run that was stopped by a signal in its second phase.
"""

import json
import random
import re
import shutil
import signal

import pytest

from recjax.common.errors import STOPPED
from tests.faults import runs

pytestmark = pytest.mark.faults

DAMAGES = 30


def stop_at(data, workdir, step, *more, **env):
    """Stops a run by SIGTERM after a step, as soon as it has two checkpoints."""
    process = runs.start(data, workdir, *more, **env)

    def due():
        each = [r["step"] for r in runs.records(workdir)]
        return max(each, default=0) >= step and len(saves(workdir)) > 1

    assert runs.kill_when(process, due, signal.SIGTERM), runs.output(workdir)
    assert process.wait(timeout=60) == STOPPED
    return workdir


def saves(workdir):
    """Returns the steps of the phase's checkpoints, newest first."""
    folder = workdir / "checkpoints" / "last"
    found = [p.name for p in folder.glob("*") if (p / "manifest.json").exists()]
    return sorted(map(int, filter(str.isdigit, found)), reverse=True)


@pytest.fixture(scope="module")
def stopped(data, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    return stop_at(data, workdir, 60, **cache)


def copy_of(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def damage(folder, seed):
    """Flips a bit of a random file, or truncates or deletes the file."""
    rng = random.Random(seed)
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    raw = bytearray(path.read_bytes())
    kind = ("flip", "cut", "delete")[seed % 3]
    if kind == "delete" or not raw:
        path.unlink()
    elif kind == "cut":
        path.write_bytes(raw[: rng.randrange(len(raw))])
    else:
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)


@pytest.mark.parametrize("seed", range(DAMAGES))
def test_a_damaged_checkpoint(data, cache, uninterrupted, stopped, tmp_path, seed):
    """It is named and skipped; the previous one leads to the same bits."""
    workdir = copy_of(stopped, tmp_path)
    newest, before = saves(workdir)
    damage(workdir / "checkpoints" / "last" / str(newest), seed)
    assert runs.finish(data, workdir, **cache) == 0, runs.output(workdir)
    output = runs.output(workdir)
    assert re.search(rf"checkpoints/last/{newest}: skipped: ", output), output
    assert f"last/{before}: skipped" not in output
    epoch, step = divmod(before - 15, 5)  # the first phase has 15 steps, an epoch 5
    within = f" and {step} steps" if step else ""
    assert f"resuming after epoch {epoch}{within} of phase top" in output
    runs.assert_same(workdir, uninterrupted)


def test_both_checkpoints_damaged(data, cache, uninterrupted, stopped, tmp_path):
    """The phase starts again, from its initial parameters."""
    workdir = copy_of(stopped, tmp_path)
    for number in saves(workdir):
        damage(workdir / "checkpoints" / "last" / str(number), number)
    assert runs.finish(data, workdir, **cache) == 0, runs.output(workdir)
    assert "phase top has no checkpoint yet" in runs.output(workdir)
    runs.assert_same(workdir, uninterrupted)


def test_killed_again_after_a_damaged_checkpoint(
    data, cache, uninterrupted, stopped, tmp_path
):
    """A skipped checkpoint is not used later, and not counted among the kept ones."""
    workdir = copy_of(stopped, tmp_path)
    newest, _ = saves(workdir)
    damage(workdir / "checkpoints" / "last" / str(newest), 0)
    again = runs.start(data, workdir, **cache)

    def due():
        return max(saves(workdir)) > newest

    assert runs.kill_when(again, due), runs.output(workdir)
    assert runs.finish(data, workdir, **cache) == 0, runs.output(workdir)
    runs.assert_same(workdir, uninterrupted)


def change_event(data, workdir):
    path = data / f"{data.name}.inter"
    lines = path.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join(lines) + "\n")


def change_title(data, workdir):
    path = data / f"{data.name}.item"
    path.write_text(path.read_text().replace("one one", "one two"))


def change_config(data, workdir):
    """Deletes `config.json`, so that only the checkpoint knows the old config."""
    (workdir / "config.json").unlink()
    return "--config.train.batch_size=4"


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (change_event, r"data: \w{12} before, \w{12} now"),
        (change_title, r"data: \w{12} before, \w{12} now"),
        (change_config, r"train\.batch_size: 8 before, 4 now"),
        (lambda *_: "--config.train.batch_size=4", r"train\.batch_size: 8 before"),
    ],
)
def test_another_run_is_refused(data, cache, stopped, tmp_path, change, differs):
    workdir = copy_of(stopped, tmp_path)
    before = {p: p.read_bytes() for p in workdir.rglob("checkpoints/**/*.json")}
    files = {p: p.read_bytes() for p in data.iterdir()}
    try:
        more = change(data, workdir)
        assert runs.finish(data, workdir, *([more] if more else []), **cache) == 2
    finally:
        for path, raw in files.items():
            path.write_bytes(raw)
    last = runs.output(workdir).splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(differs, last), last
    assert before == {p: p.read_bytes() for p in workdir.rglob("checkpoints/**/*.json")}


def test_another_key_for_the_users_is_refused(data, cache, tmp_path):
    key, workdir = tmp_path / "key", tmp_path / "run"
    key.write_text("0123456789abcdef")
    more = f"--config.data.user_key={key}"
    stop_at(data, workdir, 30, more, **cache)
    key.write_text("fedcba9876543210")
    assert runs.finish(data, workdir, more, **cache) == 2
    last = runs.output(workdir).splitlines()[-1]
    assert re.search(r"belongs to another run \(users: \w+ before, \w+ now", last), last


def test_another_topology_is_noted(data, cache, uninterrupted, tmp_path):
    """From one device to two: the run goes on, says so, and its steps have no gap."""
    workdir, more = tmp_path / "run", "--config.mesh.data=-1"
    stop_at(data, workdir, 60, more, **cache)
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    assert runs.finish(data, workdir, more, **cache, **two) == 0, runs.output(workdir)
    output = runs.output(workdir)
    assert re.search(
        r"note: changed since the checkpoint: .*mesh\.data: 1 before, 2 now", output
    )
    steps = [[r["step"] for r in runs.records(w)] for w in (workdir, uninterrupted)]
    assert steps[0] == steps[1]
    test = [
        json.loads((w / "results.json").read_text())["test"]["auc"]["value"]
        for w in (workdir, uninterrupted)
    ]
    assert test[0] == pytest.approx(test[1], abs=0.01)  # of other last bits
