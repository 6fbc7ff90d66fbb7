"""Processes that are killed, stopped or run out of disk: `pytest -m faults`."""

import random
import re
import shutil
import signal
import subprocess

import pytest

from recjax.common.errors import STOPPED
from tests.faults import runs

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("seed", range(20))
def test_kill_9(data, cache, uninterrupted, tmp_path, seed):
    """Kills at a random step.

    Every third kill is during a save, every fourth during evaluation, and the last two
    are between the phases and between the last phase and the results.
    """
    rng, workdir = random.Random(seed), tmp_path / "run"
    steps = runs.last_step(uninterrupted)
    at = rng.randrange(1, steps * 7 // 10)
    last = workdir / "checkpoints" / "last"
    valid = {r["step"] for r in runs.records(uninterrupted) if "valid/hr@10" in r}
    before = min((step for step in valid if step >= at), default=steps)

    def due():
        if seed >= 18:
            ends = sum("test/hr@10" in r for r in runs.records(workdir))
            return ends > seed - 18
        if seed % 3 == 1:
            names = (
                [p.name for p in last.glob("*")]
                if runs.last_step(workdir) >= at
                else []
            )
            return any(".orbax-checkpoint-tmp" in name for name in names)
        if seed % 4 == 2:
            return runs.last_step(workdir) >= before
        return runs.last_step(workdir) >= at

    killed = runs.kill_when(runs.start(data, workdir, **cache), due)
    assert killed, runs.output(workdir)
    assert runs.finish(data, workdir, **cache) == 0, runs.output(workdir)
    runs.assert_same(workdir, uninterrupted)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(data, cache, uninterrupted, tmp_path, how):
    workdir = tmp_path / "run"
    more = ("--config.train.checkpoint_seconds=1000",)
    process = runs.start(data, workdir, *more, **cache)
    assert runs.kill_when(process, lambda: runs.last_step(workdir) >= 53, how)
    assert process.wait(timeout=60) == STOPPED
    assert "stopped: the same command resumes" in runs.output(workdir)
    stopped_at = runs.last_step(workdir)
    assert runs.finish(data, workdir, *more, **cache) == 0, runs.output(workdir)
    found = re.search(
        r"resuming after epoch (\d+)( and (\d+) steps)? of", runs.output(workdir)
    )
    epoch, _, steps = found.groups()
    assert 15 + 5 * int(epoch) + int(steps or 0) == stopped_at
    assert "Traceback" not in runs.output(workdir)
    runs.assert_same_training(workdir, uninterrupted)


def test_a_full_disk(data, cache, uninterrupted, tmp_path):
    """On a small file system a later save fails.

    The previous checkpoint remains, and the run that resumes from it gives the same
    bits.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    try:
        workdir = disk / "run"
        process = runs.start(data, workdir, **cache)
        filler = disk / "filler"

        def fill():
            if runs.last_step(workdir) < 30:
                return False
            free = shutil.disk_usage(disk).free
            filler.write_bytes(bytes(max(free - 2000, 0)))
            return True

        assert runs.kill_when(process, fill, signal.SIGCONT), runs.output(workdir)
        code = process.wait(timeout=120)
        text = runs.output(workdir)
        assert "Traceback" not in text, text
        assert "NOT SAVED" in text or "No space left" in text, text
        assert code in (0, 2)
        filler.unlink()
        assert runs.finish(data, workdir, **cache) == 0, runs.output(workdir)
        assert "resuming" in runs.output(workdir)
        runs.assert_same(workdir, uninterrupted)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_directory_that_may_not_be_written(data, cache, tmp_path):
    workdir = tmp_path / "file" / "run"
    (tmp_path / "file").write_text("no directory")
    out = subprocess.run(
        runs.command(data, workdir), capture_output=True, text=True, cwd=runs.ROOT,
        check=False,
    )  # fmt: skip
    assert out.returncode == 2
    assert len(out.stderr.strip().splitlines()) == 1
