"""Skipped batches, signals, epochs and checkpoints of the training loop."""

import contextlib
import json
import os
import shutil
import signal

import numpy as np
import pytest

from recjax.checkpointing.checkpoints import Checkpoints, read_params
from recjax.common.errors import Stopped, UserError
from recjax.config import base
from recjax.data.batching.train_batches import TrainBatches
from recjax.reporting import progress
from recjax.run import train
from recjax.runtime.locks import MARK
from recjax.training.phase import Phase
from recjax.training.train_step import SPIKE_AFTER
from tests.conftest import records, without_times


@pytest.fixture
def small(config):
    """In-batch negatives of ids, 5 steps an epoch, every step recorded."""
    c = config.unlock()
    c.item_tower.sources, c.loss.negatives = ("id",), "in_batch"
    c.train.batch_size, c.report.every_steps = 8, 1
    c.train.phases = (base.phase("p", epochs=2, lr=1e-2, patience=0),)
    return c.lock()


def poison(monkeypatch, spoilt, value=np.nan):
    """Gives the batches whose number is in `spoilt` a loss of `value`."""
    make, count = TrainBatches.make_batch, iter(range(10**9))

    def spoil(self, *args):
        batch = make(self, *args)
        if next(count) in spoilt:
            weights = np.full_like(batch.items.log_weight_U, value)
            return batch._replace(items=batch.items._replace(log_weight_U=weights))
        return batch

    monkeypatch.setattr(TrainBatches, "make_batch", spoil)


def test_a_bad_batch_is_skipped_and_named(small, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {2})
    final = train.run(small, str(tmp_path))
    out = capsys.readouterr().out
    (line,) = (x for x in out.splitlines() if "batch skipped" in x)
    assert "phase p, step 3: loss nan: batch skipped, 1 so far; its 8 users: u" in line
    assert final["phases"]["p"]["epochs"] == 2  # the run goes on
    assert all(np.isfinite(x).all() for x in read_params(tmp_path, 1).values())
    steps = [r for r in records(tmp_path) if "train/loss" in r or "train/skipped" in r]
    assert [r["step"] for r in steps] == list(range(1, 11))
    assert steps[2] == {"step": 3, "train/skipped": 1}
    assert not any(np.isnan(v) for r in records(tmp_path) for v in r.values())


def test_prefixes_are_read_once_and_their_users_named(
    small, tmp_path, monkeypatch, capsys
):
    c = small.unlock()
    c.data.split, c.data.rating = "fixed", ""
    c.train.batch_size, c.train.phases[0].epochs = 40, 2  # a step each
    poison(monkeypatch, {0})
    train.run(c.lock(), str(tmp_path))
    out = capsys.readouterr().out
    (line,) = (x for x in out.splitlines() if "batch skipped" in x)
    _, names = line.split("its 40 users: ")
    assert len(set(names.split(", "))) == len(names.split(", "))


def test_a_phase_can_have_its_own_negatives(small, tmp_path):
    """`loss.negatives` is overridden in that phase only."""

    def losses(name, loss, *phases):
        c = small.copy_and_resolve_references().unlock()
        c.loss.negatives = loss
        c.train.phases = tuple(
            base.phase(f"p{i}", epochs=1, negatives=negatives)
            for i, negatives in enumerate(phases)
        )
        train.run(c.lock(), str(tmp_path / name))
        return [r["train/loss"] for r in records(tmp_path / name) if "train/loss" in r]

    one = losses("one", "all", "", "stale")
    assert one == losses("same", "in_batch", "all", "stale")
    assert one[:5] == losses("whole", "all", "", "")[:5]
    other = losses("other", "all", "", "in_batch")
    assert one[:5] == other[:5]
    assert one[5:] != other[5:]


def test_too_many_bad_batches_stop_the_run(small, tmp_path, monkeypatch):
    poison(monkeypatch, range(10**6))
    c = small.unlock()
    c.train.max_skipped = 3
    with pytest.raises(UserError, match=r"[45] batches were skipped, more than"):
        train.run(c.lock(), str(tmp_path))
    before = read_params(tmp_path, 0)
    with contextlib.closing(Checkpoints(tmp_path, print)) as c:
        arrays = c._last._orbax.restore(c.step_checkpoint.path)["state"]["trainable"]
    for path, x in arrays.items():
        np.testing.assert_array_equal(x, before[path])


def test_a_phase_that_skips_every_batch_ends_the_run(small, tmp_path, monkeypatch):
    poison(monkeypatch, range(10**6))
    c = small.unlock()
    c.train.max_skipped = 10**6
    with pytest.raises(
        UserError, match="phase p: all 10 batches were skipped, so noth"
    ):
        train.run(c.lock(), str(tmp_path))
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("name", [MARK, "."])
def test_a_run_directory_that_is_taken_away_ends_the_run(
    small, tmp_path, monkeypatch, name
):
    folder, run_step = tmp_path / "run", Phase.run_step

    def take_away(self, *args):
        if name == ".":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            (folder / name).unlink(missing_ok=True)
        return run_step(self, *args)

    monkeypatch.setattr(Phase, "run_step", take_away)
    with pytest.raises((UserError, FileNotFoundError)) as e:
        train.run(small, str(folder))
    if name == ".":
        assert not folder.exists()
    else:
        assert "was deleted or replaced while" in str(e.value)
        assert not (folder / "results.json").exists()


def test_a_spike_is_skipped(small, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {2, SPIKE_AFTER + 3}, value=1e3)
    c = small.unlock()
    c.train.phases[0].epochs = 22
    train.run(c.lock(), str(tmp_path))
    lines = [x for x in capsys.readouterr().out.splitlines() if "batch skipped" in x]
    assert len(lines) == 1  # the first spike comes before spikes are detected
    assert f"step {SPIKE_AFTER + 4}: loss 1" in lines[0]


@pytest.mark.parametrize(("min_spread", "times"), [(2.0, 1), (1e-6, 0)])
def test_collapsed_vectors_are_named(small, tmp_path, capsys, min_spread, times):
    """The warning comes once in a phase, and only below the limit."""
    c = small.unlock()
    c.train.min_spread = min_spread
    train.run(c.lock(), str(tmp_path))
    out = capsys.readouterr().out
    for kind in ("users", "items"):
        assert out.count(f"the vectors of {kind} have collapsed to nearly") == times
    spreads = [r["train/spread/items"] for r in records(tmp_path) if "train/loss" in r]
    assert all(1e-6 < s <= 1 for s in spreads)


@pytest.mark.parametrize("at", [3, 5, 7])
def test_a_signal_stops_within_an_epoch_and_the_run_goes_on(
    small, tmp_path, monkeypatch, capsys, at
):
    """The run stops after that step, or after the validation at an epoch's end.

    The stale negatives are older than the step at which it stops.
    """
    c = small.unlock()
    c.loss.negatives, c.loss.refresh_steps = "stale", 4
    c.train.checkpoint_seconds = 1000.0
    whole = train.run(c, str(tmp_path / "whole"))
    flush = progress.TrainLogger.add

    def signalled(self, *args):
        flush(self, *args)
        if self.step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(progress.TrainLogger, "add", signalled)
        with pytest.raises(Stopped):
            train.run(c, str(tmp_path / "run"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    capsys.readouterr()
    resumed = train.run(c, str(tmp_path / "run"))
    epochs, steps = divmod(at, 5)
    within = f" and {steps} steps" if steps else ""
    printed = capsys.readouterr().out
    assert f"resuming after epoch {epochs}{within} of phase p" in printed
    assert resumed["test"] == whole["test"]
    first, second = (read_params(tmp_path / name, 1) for name in ("whole", "run"))
    for path, x in first.items():
        np.testing.assert_array_equal(x, second[path])

    assert without_times(tmp_path / "run") == without_times(tmp_path / "whole")


def test_a_phase_has_its_own_batches(config, tmp_path):
    """40 users: 5 steps of 8 in each of two epochs, then 2 of 20, then 5 again."""
    c = config.unlock()
    c.item_tower.sources, c.train.batch_size = ("id",), 8
    c.report.every_steps = 1
    c.train.phases = tuple(
        base.phase(f"p{i}", epochs=epochs, lr=1e-2, patience=0, batch_size=size)
        for i, (epochs, size) in enumerate(((2, 0), (1, 20), (1, 0)))
    )
    train.run(c.lock(), str(tmp_path))
    steps = [r["step"] for r in records(tmp_path) if "test/hr@10" in r]
    assert steps == [10, 12, 17]
    assert [r["step"] for r in records(tmp_path) if "train/loss" in r] == [
        *range(1, 18)
    ]


def test_the_newest_checkpoints_are_kept(small, tmp_path):
    c = small.unlock()
    c.train.checkpoint_seconds, c.train.keep = 0.0, 3
    train.run(c.lock(), str(tmp_path))
    saved = [int(p.name) for p in (tmp_path / "checkpoints" / "last").iterdir()]
    assert len(saved) == 3
    assert max(saved) == 10


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_phase_leaves_its_best_or_its_last_state(config, tmp_path, keep):
    """The learning rate is so high that the best epoch is not the last."""
    c = config.unlock()
    c.item_tower.sources = ("id",)
    c.train.phases = (base.phase("p", epochs=5, lr=0.5, patience=0, keep=keep),)
    train.run(c.lock(), str(tmp_path))
    seen = [r["valid/ndcg@10"] for r in records(tmp_path) if "valid/ndcg@10" in r]
    assert seen[-1] < max(seen)
    (left,) = [r for r in records(tmp_path) if "valid/kept/ndcg@10" in r]
    want = {"best": max(seen), "last": seen[-1]}[keep]
    assert left["valid/kept/ndcg@10"] == pytest.approx(want, abs=1e-6)


def test_parameters_that_are_not_finite_end_the_run(small, tmp_path):
    c = small.unlock()
    rules = ((r".*", 100.0),)
    c.train.phases = (base.phase("p", epochs=1, lr=3e38, keep="last", lr_mults=rules),)
    with pytest.raises(UserError, match=r"phase p: .* is not finite after training"):
        train.run(c.lock(), str(tmp_path))
    assert not (tmp_path / "results.json").exists()


def test_an_epoch_can_have_a_fixed_number_of_steps(config, tmp_path):
    """40 users in epochs of 2 batches of 8: the next epoch takes the remaining ones."""
    c = config.unlock()
    c.item_tower.sources, c.train.batch_size = ("id",), 8
    c.report.every_steps = 1
    c.train.phases = (base.phase("p", epochs=5, lr=1e-2, patience=0, epoch_steps=2),)
    train.run(c.lock(), str(tmp_path / "short"))
    valid = [r["step"] for r in records(tmp_path / "short") if "valid/ndcg@10" in r]
    c = config.unlock()
    c.train.phases = (base.phase("p", epochs=2, lr=1e-2, patience=0),)
    train.run(c.lock(), str(tmp_path / "whole"))
    assert sorted(set(valid)) == [2, 4, 6, 8, 10]
    short, whole = (
        [r["train/loss"] for r in records(tmp_path / x) if "train/loss" in r]
        for x in ("short", "whole")
    )
    np.testing.assert_allclose(short, whole, rtol=1e-5)


def test_stale_vectors_are_refreshed(config, tmp_path, monkeypatch):
    """The first step and every second one after it encode with current parameters."""
    c = config.unlock()
    c.loss.negatives, c.loss.refresh_steps = "stale", 2
    c.item_tower.sources, c.train.batch_size = ("id",), 8  # 40 users: 5 steps
    c.train.phases = (base.phase("p", epochs=1, lr=1e-2, patience=0),)
    used = []

    encode = Phase.encode_stale

    def counted(phase, state):
        found = encode(phase, state)
        used.append((int(state.step), np.asarray(found["stale"]["vectors_NxD"])))
        embedding = state.trainable["items/id/vectors/embedding"]
        np.testing.assert_allclose(used[-1][1], embedding, rtol=1e-6)
        return found

    monkeypatch.setattr(Phase, "encode_stale", counted)
    train.run(c.lock(), str(tmp_path))
    assert [step for step, _ in used] == [0, 2, 4]
    assert np.abs(used[0][1] - used[2][1]).max() > 1e-3
    assert json.loads((tmp_path / "results.json").read_text())
