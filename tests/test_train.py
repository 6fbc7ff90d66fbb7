"""Whole runs on synthetic data: learning, freezing, resuming, refusing."""

import json

import numpy as np
import pytest

from configs import base
from recjax import phase, train, trees
from recjax.checkpoint import Checkpoints
from recjax.errors import UserError

TOP = "items/text/encoder/layer_2/"


@pytest.fixture
def two_phases(config):
    c = config.unlock()
    c.train.phases = base.phases(
        towers={"epochs": 3, "lr": 1e-2},
        top={
            "epochs": 8,
            "lr": 1e-2,
            "patience": 0,
            "lr_mults": base.freeze(1, layers=3),
        },
    )
    c.train.checkpoint_seconds = 0.0
    return c.lock()


def saved_params(workdir, index):
    checkpoints = Checkpoints(workdir)
    params, _ = checkpoints.restore_params(index)
    checkpoints.close()
    return params


def test_two_phases_learn_and_freeze(two_phases, tmp_path, capsys):
    final = train.run(two_phases, str(tmp_path))
    out = capsys.readouterr().out

    # It learns the pattern, and the table says so.
    popularity = final["baselines"]["popularity"]["ndcg@10"]
    assert final["test"]["ndcg@10"]["low"] > popularity["high"]
    assert "before" in final
    assert list(final["phases"]) == ["towers", "top"]
    assert "| after top (8 epochs)" in out
    assert " -> number " in out
    assert "compiling train_step" in out
    assert "items/text/encoder/layer_1" in out

    # Frozen is bit-identical, trained is changed; per phase.
    first, second, third = (saved_params(tmp_path, i) for i in range(3))
    towers, top = trees.max_change(first, second), trees.max_change(second, third)
    for path, change in towers.items():
        assert (change == 0) == ("/encoder/" in path), path
    for path, change in top.items():
        frozen = "/encoder/" in path and not path.startswith(TOP)
        assert (change == 0) == frozen, path

    # The run directory.
    results = json.loads((tmp_path / "results.json").read_text())
    assert results.keys() >= {
        "fingerprint", "seed", "test", "valid", "baselines", "before", "params",
        "seconds",
    }  # fmt: skip
    assert results["test"]["hr@10"].keys() == {"value", "low", "high"}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    tags = {tag for line in lines for tag in json.loads(line)}
    assert tags >= {
        "train/loss", "valid/ndcg@10", "optim/lr/encoder", "optim/lr/users",
        "time/step_ms", "test/hr@10",
    }  # fmt: skip
    assert list(tmp_path.glob("events.out.tfevents*"))

    # The same command again shows the results.
    assert train.run(two_phases, str(tmp_path)) == results
    assert "holds a finished run" in capsys.readouterr().out


def test_tensorboard_reads_the_run(two_phases, tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    train.run(two_phases, str(tmp_path))
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert "train/loss" in events.Tags()["scalars"]
    assert {"config/text_summary", "results/text_summary"} <= set(
        events.Tags()["tensors"]
    )


@pytest.mark.parametrize("killed_at", [2, 6, 7, 10, 17])
def test_resumed_equals_uninterrupted(two_phases, tmp_path, monkeypatch, killed_at):
    """Killed in phase towers (evaluations 1 to 6), as phase top starts (7), in it."""
    whole = train.run(two_phases, str(tmp_path / "whole"))

    class KilledError(Exception):
        pass

    calls, evaluate = [], phase.Evaluator.by_model

    def dying(self, *args):
        calls.append(args)
        if len(calls) == killed_at:
            raise KilledError
        return evaluate(self, *args)

    monkeypatch.setattr(phase.Evaluator, "by_model", dying)
    with pytest.raises(KilledError):
        train.run(two_phases, str(tmp_path / "killed"))
    resumed = train.run(two_phases, str(tmp_path / "killed"))

    for a, b in ((whole["test"], resumed["test"]), (whole["valid"], resumed["valid"])):
        assert a == b
    first, second = (saved_params(tmp_path / d, 2) for d in ("whole", "killed"))
    assert not any(trees.max_change(first, second).values())

    def records(name):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [
            {k: v for k, v in json.loads(line).items() if k != "time/step_ms"}
            for line in lines
        ]

    assert records("whole") == records("killed")


def test_early_stopping_keeps_the_best(config, tmp_path, capsys):
    c = config.unlock()
    # The first epochs help, the huge rate that follows the warm-up destroys.
    c.train.phases = base.phases(
        p={"epochs": 30, "lr": 3.0, "warmup": 1.0, "patience": 3}
    )
    c.optim.clip_norm = 0.0
    final = train.run(c.lock(), str(tmp_path))
    out = capsys.readouterr().out
    assert "stopping early: no better ndcg@10 for 3 epochs" in out
    assert final["phases"]["p"]["epochs"] < 30
    records = [json.loads(x) for x in (tmp_path / "metrics.jsonl").open()]
    seen = [r["valid/ndcg@10"] for r in records if "valid/ndcg@10" in r]
    assert final["valid"]["ndcg@10"]["value"] == pytest.approx(max(seen))
    assert seen[-1] < max(seen)


def test_another_config_in_the_same_directory_is_refused(config, tmp_path):
    train.run(config, str(tmp_path))
    other = config.copy_and_resolve_references().unlock()
    other.item_tower.width = 16
    with pytest.raises(UserError, match=r"item_tower\.width: 8 there, 16 here"):
        train.run(other, str(tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("item_tower.sources", ("image",), "item_tower.sources: 'image' is not one"),
        ("item_tower.combine", "mul", "item_tower.combine: 'mul' is not one of"),
        ("item_tower.width", 9, "width 9 is not divisible"),
        ("user_tower.name", "rnn", "user_tower.name: 'rnn' is not one of"),
        ("head.name", "mlp", "head.name: 'mlp' is not one of"),
        ("loss.negatives", "hard", "loss.negatives: 'hard' is not one of"),
        ("data.windows", "some", "data.windows: 'some' is not one of"),
        ("data.split", "random", "data.split: 'random' is not one of"),
        ("data.format", "xml", "data.format: 'xml' is not one of"),
        ("data.source", "/no/where", "'/no/where' is neither a known name"),
        ("text.encoder", "/no/where", "'/no/where' is neither a known name"),
        ("text.template", "{nothing}", "template '{nothing}'"),
        ("text.max_tokens", 4000, "text.max_tokens: 4000 is not within"),
        ("eval.baselines", ("oracle",), "eval.baselines: 'oracle' is not one of"),
        ("train.metric", "ndcg@7", "train.metric: 'ndcg@7' is not one of"),
        ("train.dtype", "float12", "train.dtype: 'float12' is not one of"),
        ("mesh.data", 64, r"mesh: \(64, 1\) needs 64 devices, there are 8"),
    ],
)
def test_wrong_values_are_one_line(config, tmp_path, key, value, message):
    c = config.unlock()
    section, name = key.split(".")
    c[section][name] = value
    with pytest.raises(UserError, match=message) as e:
        train.run(c.lock(), str(tmp_path / "run"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"train.dtype": "bfloat16"},
        {"loss.negatives": "in_batch"},
        {"loss.negatives": "in_batch", "loss.logq": False},
        {"head.name": "two_tower", "head.temperature": 0.1},
        {"user_tower.name": "mean"},
        {"optim.name": "adafactor"},
        {"eval.mask_seen": False},
        {"data.windows": "all"},
        {"item_tower.sources": ("id", "text"), "item_tower.combine": "gate"},
        {"item_tower.sources": ("id",), "data.item_table": False},
    ],
)
def test_every_choice_runs(config, tmp_path, changes):
    c = config.unlock()
    for key, value in changes.items():
        section, name = key.split(".")
        c[section][name] = value
    c.train.phases = base.phases(
        all={"epochs": 1, "lr_mults": base.freeze("none", layers=3)}
    )
    final = train.run(c.lock(), str(tmp_path))
    assert np.isfinite(final["test"]["auc"]["value"])


def test_ratings_are_reported(config, tmp_path):
    c = config.unlock()
    c.data.rating, c.eval.like_threshold = "rating", 4.0
    final = train.run(c.lock(), str(tmp_path))
    r = final["phases"]["towers"]["rating"]
    counts = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert sum(r[c] for c in counts) == 40
    assert "says like" in (tmp_path / "results.md").read_text()
