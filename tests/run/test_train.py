"""Complete runs on synthetic data: learning, freezing, resuming, refusing."""

import contextlib
import hashlib
import io
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from recjax.checkpointing.checkpoints import Checkpoints, read_params
from recjax.common import param_paths
from recjax.common.errors import UserError
from recjax.config import base, validate, validate_model
from recjax.data.batching.negatives import NEGATIVES
from recjax.data.splits import load_data
from recjax.evaluation import results as results_lib
from recjax.evaluation.beyond_accuracy import beyond_accuracy
from recjax.evaluation.evaluator import Evaluator
from recjax.evaluation.model_scorer import ModelScorer
from recjax.losses import LOSSES
from recjax.models.encoders.huggingface import load_config
from recjax.models.heads import HEADS
from recjax.models.items.text_source import POOLINGS
from recjax.models.items.tower import COMBINE, SOURCES
from recjax.models.recommender import Recommender, make_model
from recjax.models.users import POSITIONS, USER_TOWERS, USES_GRAPH
from recjax.run import phases, train
from recjax.runtime.locks import MARK
from recjax.training.initial_params import dummy_inputs
from recjax.training.optimizer import OPTIMIZERS, SCHEDULES
from tests import synthetic
from tests.conftest import (
    INSTALLED_BASELINES,
    TINY_BERT,
    TOP,
    records,
    shrink,
    without_times,
)


def two_phases(atomic_dir):
    """Towers over frozen vectors, then the encoder's top layer; saved every epoch."""
    c = shrink(base.get_config(), atomic_dir).unlock()
    c.item_tower.sources = ("id", "text")
    c.user_tower.dropout = 0.05
    c.train.batch_size = 8  # 40 users: 5 steps an epoch
    c.train.checkpoint_seconds = 0.0
    top = base.freeze(1, layers=3)
    c.train.phases = (
        base.phase("towers", epochs=3, lr=1e-2),
        base.phase("top", epochs=4, lr=1e-2, patience=0, ema=0.5, lr_mults=top),
    )
    return c.lock()


class WholeRun(NamedTuple):
    config: Any
    workdir: Path
    final: dict
    out: str


@pytest.fixture(scope="module")
def whole(atomic_dir, tmp_path_factory):
    """An uninterrupted run and its output."""
    config, workdir = two_phases(atomic_dir), tmp_path_factory.mktemp("whole")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        final = train.run(config, str(workdir))
    return WholeRun(config, workdir, final, out.getvalue())


def test_two_phases_learn(whole):
    final = whole.final
    popularity = final["baselines"]["popularity"]["ndcg@10"]
    assert final["test"]["ndcg@10"]["low"] > popularity["high"]
    assert "zero_shot" in final
    assert list(final["phases"]) == ["towers", "top"]
    for words in (
        "| after phase top (4 epochs)",
        "- after ",
        "items/text/encoder/layer_0-1 (",
        ", loss ",  # after steps a second, or seconds a step
        "users/s",
    ):
        assert words in whole.out, words


def test_frozen_is_bit_identical_and_trained_is_changed(whole):
    first, second, third = (read_params(whole.workdir, i) for i in range(3))
    towers, top = (
        param_paths.max_change(first, second),
        param_paths.max_change(second, third),
    )
    for path, change in towers.items():
        assert (change == 0) == ("/encoder/" in path), path
    for path, change in top.items():
        frozen = "/encoder/" in path and not path.startswith(TOP)
        assert (change == 0) == frozen, path
    for name, changes in (("towers", towers), ("top", top)):
        trained = sum(first[path].size for path, change in changes.items() if change)
        assert whole.final["phases"][name]["trainable"] == trained
    assert "; 37 of 37 frozen ones are bit-identical" in whole.out


def test_run_directory(whole, capsys):
    results = json.loads((whole.workdir / "results.json").read_text())
    assert results.keys() >= {
        "fingerprint", "seed", "test", "valid", "baselines", "zero_shot", "params",
        "seconds",
    }  # fmt: skip
    assert results["test"]["hr@10"].keys() == {"value", "low", "high"}
    tags = {tag for record in records(whole.workdir) for tag in record}
    assert tags >= {
        "train/loss", "valid/ndcg@10", "train/lr/encoder", "train/lr/users",
        "time/step_ms", "test/hr@10",
    }  # fmt: skip

    # The same command again shows the results.
    assert train.run(whole.config, str(whole.workdir)) == results
    shown = capsys.readouterr().out
    assert "holds a finished run" in shown
    table = (whole.workdir / "results.md").read_text().partition("\n\n")[0]
    assert table in shown


def test_ranks_reproduce_the_results(whole):
    """Every metric of every system can be computed from the ranks."""
    table = pl.read_parquet(whole.workdir / "ranks.parquet")
    data = load_data(whole.config)
    assert table["user"].to_list() == data.user_ids[data.test.users_R].tolist()
    final = whole.final
    systems = {**final["baselines"], "zero_shot": final["zero_shot"]}
    systems |= {f"phase-{k}": x["test"] for k, x in final["phases"].items()}
    assert table.columns == ["row", "user", "events", *systems]
    counts = np.bincount(data.train.events(), minlength=data.num_items)
    assert table["events"].to_list() == counts[data.test.targets_R].tolist()
    assert table["row"].to_list() == list(range(len(data.test.users_R)))
    for name, found in systems.items():
        rank_R = table[name].to_numpy()
        assert rank_R.min() >= 1
        assert rank_R.dtype == np.int32
        for k in whole.config.eval.ks:
            near_R = rank_R <= k
            want = {"hr": near_R, "ndcg": near_R / np.log2(1 + rank_R)}
            for metric, x in {**want, "mrr": near_R / rank_R}.items():
                assert found[f"{metric}@{k}"]["value"] == pytest.approx(x.mean())
    assert final["peak_memory_mib"] > 50


def test_tensorboard_reads_the_run(whole):
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(whole.workdir))
    events.Reload()
    assert {"train/loss", "valid/ndcg@10"} <= set(events.Tags()["scalars"])
    for tag, split, metric in (
        ("test/hr@10", "test", "hr@10"),
        ("valid/kept/ndcg@10", "valid", "ndcg@10"),
    ):
        (shown,) = {e.value for e in events.Scalars(tag)[-1:]}
        assert shown == pytest.approx(whole.final[split][metric]["value"])
    assert {"config/text_summary", "results/text_summary"} <= set(
        events.Tags()["tensors"]
    )
    started = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    rules = rb"items/text/encoder/.*: frozen; .*: 1.0"
    for words in (b"item_tower.width", b"train.phases[1].ema", b"fingerprint", rules):
        assert words in started


@pytest.mark.parametrize("killed_at", [2, 5, 6, 8])
def test_resumed_equals_uninterrupted(whole, tmp_path, monkeypatch, capsys, killed_at):
    """Evaluations 1 to 5 are in phase towers, 6 starts phase top, 8 is in it."""

    class KilledError(Exception):
        pass

    calls, by_model = [], Evaluator.by_model

    def dying(self, *args):
        calls.append(args)
        if len(calls) == killed_at:
            raise KilledError
        return by_model(self, *args)

    monkeypatch.setattr(Evaluator, "by_model", dying)
    with pytest.raises(KilledError):
        train.run(whole.config, str(tmp_path))
    resumed = train.run(whole.config, str(tmp_path))
    said = "has no checkpoint yet: it starts again" in capsys.readouterr().out
    assert said == (killed_at == 6)  # killed before a step was saved

    for what in ("test", "valid", "baselines", "zero_shot", "phases"):
        assert resumed[what] == whole.final[what]
    first, second = (read_params(folder, 2) for folder in (whole.workdir, tmp_path))
    assert not any(param_paths.max_change(first, second).values())
    tables = [pl.read_parquet(w / "ranks.parquet") for w in (whole.workdir, tmp_path)]
    assert tables[0].equals(tables[1])

    assert without_times(tmp_path) == without_times(whole.workdir)


def test_seconds_and_memory_of_an_interrupted_run_are_kept(
    whole, tmp_path, monkeypatch
):
    """The run is killed after the last epoch of a phase, whose end is always saved."""
    c = whole.config.copy_and_resolve_references().unlock()
    c.train.checkpoint_seconds = 1e9
    save_last = Checkpoints.save_last

    def after_100_seconds(self, step, tree, meta):
        meta["seconds"] = {k: v + 100 for k, v in meta["seconds"].items()}
        meta["peak_memory_mib"] += 10**6
        save_last(self, step, tree, meta)

    def dying(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_last", after_100_seconds)
        patch.setattr(phases, "evaluate_phase", dying)
        with pytest.raises(KeyboardInterrupt):
            train.run(c, str(tmp_path))
    final = train.run(c, str(tmp_path))
    for split in ("test", "valid"):
        assert final[split] == whole.final[split]
    tables = [pl.read_parquet(w / "ranks.parquet") for w in (whole.workdir, tmp_path)]
    assert tables[0].equals(tables[1])
    seconds = final["seconds"]
    assert all(100 < seconds[what] < 200 for what in ("total", "load", "train"))
    assert 10**6 < final["peak_memory_mib"] < 2 * 10**6


def test_missing_ranks_cost_no_results(whole, tmp_path, capsys):
    shutil.copytree(whole.workdir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "results.json").unlink()
    (tmp_path / "ranks" / "popularity").unlink()
    (tmp_path / "ranks" / "zero_shot").write_bytes(b"")
    final = train.run(whole.config, str(tmp_path))
    assert final["phases"] == whole.final["phases"]
    table = pl.read_parquet(whole.workdir / "ranks.parquet")
    found = pl.read_parquet(tmp_path / "ranks.parquet")
    assert found.equals(table.drop("popularity", "zero_shot"))
    out = capsys.readouterr().out
    assert "warning: ranks.parquet has no column popularity: " in out
    assert "warning: ranks.parquet has no column zero_shot: " in out


def test_early_stopping_keeps_the_best(config, tmp_path, capsys):
    c = config.unlock()
    c.item_tower.sources = ("id", "text")
    # The first epochs help; the huge rate later in the warm-up destroys the model.
    c.train.phases = (base.phase("p", epochs=30, lr=0.5, warmup=1.0, patience=3),)
    c.optim.clip_norm = 0.0
    final = train.run(c.lock(), str(tmp_path))
    out = capsys.readouterr().out
    assert "stopping early: no better ndcg@10 for 3 epochs" in out
    assert final["phases"]["p"]["epochs"] < 30
    seen = [r["valid/ndcg@10"] for r in records(tmp_path) if "valid/ndcg@10" in r]
    assert final["valid"]["ndcg@10"]["value"] == pytest.approx(max(seen))
    assert seen[0] < max(seen) > seen[-1]


def test_another_config_in_the_same_directory_is_refused(config, tmp_path):
    train.run(config, str(tmp_path))
    shutil.rmtree(tmp_path / "checkpoints")  # the run still counts as finished
    other = config.copy_and_resolve_references().unlock()
    other.item_tower.width = 16
    with pytest.raises(UserError, match=r"item_tower\.width: 8 before, 16 now"):
        train.run(other, str(tmp_path))
    for file in ("results.json", "config.json"):
        (tmp_path / file).write_text("{")
        with pytest.raises(
            UserError, match=f"{file}: not JSON .*; delete it to create"
        ):
            train.run(config, str(tmp_path))
        (tmp_path / file).write_bytes(b"\xff")
        with pytest.raises(UserError, match=f"{file}: not UTF-8; delete it to create"):
            train.run(config, str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="has results but no config"):
        train.run(other, str(tmp_path))
    assert not (tmp_path / "config.json").exists()


def test_empty_results_are_damaged(config, tmp_path):
    tmp_path.joinpath("config.json").write_text(config.to_json(indent=2) + "\n")
    (tmp_path / MARK).touch()
    for text in ("{}", "[]", '{"baselines": {}, "phases": {}, "test": {}}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(UserError, match=r"results\.json: (damaged|not a JSON)"):
            train.run(config, str(tmp_path))


def test_seconds_of_an_unfinished_epoch_are_saved(config, tmp_path, monkeypatch):
    c = config.copy_and_resolve_references().unlock()
    c.train.checkpoint_seconds, found = 0.0, []
    save_last = Checkpoints.save_last

    def seen(self, step, tree, meta):
        found.append((step, meta["seconds"]["train"]))
        save_last(self, step, tree, meta)

    monkeypatch.setattr(Checkpoints, "save_last", seen)
    c.item_tower.sources = ("id",)
    c.train.phases = (base.phase("p", epochs=1, lr=0.01),)
    c.train.batch_size = 8
    train.run(c, str(tmp_path))
    assert len(found) > 2  # several checkpoints in one epoch
    assert all(b[1] > a[1] for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.source", "/no/where", "'/no/where' is neither a directory"),
        ("text.encoder", "/no/where", "'/no/where' is neither a directory"),
        ("text.template", "{nothing}", "no column 'nothing'"),
        ("text.template", "{title.x}", "no column 'title.x'"),
        ("text.max_tokens", 4000, "text.max_tokens: 4000 is more than"),
        ("eval.candidates", 1000, "eval.candidates: 1000 cannot be sampled from 25"),
        ("train.batch_size", 0, "train.batch_size: 0 is not at least 1"),
        ("mesh.rules", (("x/.*", ("modle",)), (".*", ())), "'modle' is not one of da"),
        ("mesh.data", 0, "mesh.data: 0 is neither at least 1 nor -1"),
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


@pytest.mark.parametrize("key", ["eval.baselines", "head.fusion"])
def test_baselines_that_cannot_run_are_found_first(config, tmp_path, monkeypatch, key):
    c = config.unlock()

    def name(baseline):
        section, last = key.split(".")
        c[section][last] = (baseline,)

    name("ease")
    monkeypatch.setattr(validate_model, "MAX_ITEMS", 20)
    with pytest.raises(UserError, match=f"{key}: 'ease' would need .* for 25 items"):
        train.run(c, str(tmp_path / "run"))
    name("bpr_mf")
    monkeypatch.setattr(validate, "find_spec", lambda library: None)
    with pytest.raises(UserError, match=f"{key}: 'bpr_mf' needs the library implicit"):
        train.run(c, str(tmp_path / "run"))


def test_examples_without_histories_are_refused(config, tmp_path):
    """Three events per user: one each for training, validation and test."""
    folder = tmp_path / "x"
    folder.mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"u{u}\ti{i}\t{i}" for u in range(4) for i in range(3)]
    (folder / "x.inter").write_text("\n".join(lines) + "\n")
    c = config.unlock()
    c.data.source, c.data.item_table, c.item_tower.sources = str(folder), False, ("id",)
    with pytest.raises(UserError, match="no training example has a history"):
        train.run(c, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "step"}, "phase last: schedule: 'step' is not one of"),
        ({"keep": "first"}, "phase last: keep: 'first' is not one of best, last"),
        ({"patience": -1}, "phase last: patience: -1 is not at least 0"),
        ({"epoch_steps": -1}, "phase last: epoch_steps: -1 is not at least 0"),
        ({"lr_mults": ((".*", None),)}, "phase last: lr_mults freeze every parameter"),
        ({"lr_mults": (("users/.*", 1.0),)}, "phase last: lr_mults: no rule matches"),
    ],
)
def test_a_wrong_last_phase_is_found_before_the_first(
    config, tmp_path, changes, message
):
    c = config.unlock()
    last = {"name": "last", **changes}
    c.train.phases = (base.phase("first"), base.phase(last.pop("name"), **last))
    with pytest.raises(UserError, match=message):
        train.run(c.lock(), str(tmp_path))
    assert not list(tmp_path.glob("checkpoints/params/*"))


CHOICES = {
    "data.reverse": (0.0, 0.5),
    "data.windows": ("last", "all"),
    "eval.mask_seen": (True, False),
    "head.name": HEADS,
    "item_tower.combine": COMBINE,
    "item_tower.pooling": POOLINGS,
    "loss.chunk": (1024, 5),
    "loss.logq": (True, False),
    "loss.name": LOSSES,
    "loss.negatives": NEGATIVES,
    "loss.smoothing": (0.0, 0.1),
    "optim.name": OPTIMIZERS,
    "text.remat_rows": (0, 8),
    "train.dtype": ("float32", "bfloat16"),
    "user_tower.name": USER_TOWERS,
    "user_tower.position": POSITIONS,
}


@pytest.mark.parametrize("turn", range(max(map(len, CHOICES.values()))))
def test_every_name_runs(config, tmp_path, turn):
    """Run i takes the i-th name of every registry, and starts again at its end."""
    c = config.unlock()
    c.item_tower.sources = tuple(SOURCES)
    c.eval.baselines = INSTALLED_BASELINES
    for key, names in CHOICES.items():
        section, name = key.split(".")
        c[section][name] = list(names)[turn % len(names)]
    c.data.rating, c.eval.like_threshold = "rating", 3.0
    if c.user_tower.name in USES_GRAPH:
        c.loss.negatives = "all"
    c.user_tower.num_layers = 2  # a graph tower propagates to users and back
    schedule = list(SCHEDULES)[turn % len(SCHEDULES)]
    rules = base.freeze("none", layers=3)
    c.train.phases = (
        base.phase("p", epochs=1, ema=0.5, schedule=schedule, lr_mults=rules),
    )
    final = train.run(c.lock(), str(tmp_path))
    for row in (final["test"], final["zero_shot"], *final["baselines"].values()):
        assert np.isfinite(row["auc"]["value"])
    assert tuple(final["baselines"]) == INSTALLED_BASELINES


def test_zero_shot_replaces_learned_pooling_by_the_mean(config, tmp_path):
    before = {}
    for pooling in ("attention", "mean", "cls"):
        c = config.copy_and_resolve_references().unlock()
        c.item_tower.pooling = pooling
        before[pooling] = train.run(c, str(tmp_path / pooling))["zero_shot"]
    assert before["attention"] == before["mean"] != before["cls"]


def test_ids_alone_need_no_item_file(config, tmp_path):
    c = config.unlock()
    c.item_tower.sources, c.data.item_table = ("id",), False
    final = train.run(c.lock(), str(tmp_path))
    assert "zero_shot" not in final
    assert ": i" in (tmp_path / "results.md").read_text()


def test_a_phase_without_epochs_is_skipped(config, tmp_path):
    """This holds for the last phase too: the one before gives the result."""
    c = config.unlock()
    c.item_tower.sources = ("id",)
    c.train.phases = tuple(
        base.phase(name, epochs=epochs, lr=1e-2)
        for name, epochs in (("a", 0), ("b", 1), ("c", 0))
    )
    final = train.run(c.lock(), str(tmp_path))
    assert list(final["phases"]) == ["b"]
    assert final["test"] == final["phases"]["b"]["test"]
    saved = tmp_path / "checkpoints" / "params"
    assert sorted(p.name for p in saved.iterdir()) == ["0", "1"]


def test_averaged_weights_are_kept(config, tmp_path):
    """With a decay of nearly 1 the average stays at the initial parameters."""
    c = config.unlock()
    c.train.phases = (base.phase("p", epochs=2, lr=1e-2, ema=1 - 1e-9),)
    train.run(c.lock(), str(tmp_path / "still"))
    before, after = (read_params(tmp_path / "still", i) for i in range(2))
    assert max(param_paths.max_change(before, after).values()) < 1e-5


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path):
    c = config.unlock()
    c.optim.clip_norm = 0.0
    c.train.max_skipped = 2
    c.train.phases = (base.phase("p", epochs=3, lr=1e30),)
    with pytest.raises(
        UserError, match=r"phase p: \d+ batches were skipped, more than"
    ):
        train.run(c.lock(), str(tmp_path))


def test_a_wrong_value_does_not_spoil_the_directory(config, tmp_path):
    c = config.unlock()
    c.text.template = "{nothing}"
    with pytest.raises(UserError, match="template"):
        train.run(c, str(tmp_path))
    c.text.template = "{title}"
    assert train.run(c, str(tmp_path))["test"]


def test_other_data_is_not_resumed(config, atomic_dir, tmp_path):
    folder = shutil.copytree(atomic_dir, tmp_path / atomic_dir.name)
    c = config.unlock()
    c.data.source = str(folder)
    train.run(c, str(tmp_path / "run"))
    (tmp_path / "run" / "results.json").unlink()
    path = folder / f"{folder.name}.inter"
    path.write_text(path.read_text().replace("u1\ti1\t", "u1\ti2\t"))
    with pytest.raises(
        UserError, match=r"belongs to another run \(data: \w+ before, \w+ now"
    ):
        train.run(c, str(tmp_path / "run"))


def test_oddities_in_data_and_rules_are_logged(config, tmp_path, capsys):
    """Repeat interactions, items without text, a trained layer below a frozen one.

    The model of such a run, in which users have seen most items, can be used too.
    """
    events = ["user_id:token\titem_id:token\ttimestamp:float"]
    for u in range(6):
        items = [*"abcdef"[u % 3 :], "a" if u % 2 else "g"]
        events += [f"u{u}\t{item}\t{time}" for time, item in enumerate(items)]
    items = ["item_id:token\ttitle:token_seq\tgenre:token_seq"]
    items += [f"{x}\tname of {x}\t" for x in "abcdef"]
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "odd.inter").write_text("\n".join(events) + "\n")
    (folder / "odd.item").write_text("\n".join([*items, "g\t\t"]) + "\n")
    c = config.unlock()
    c.data.source, c.text.template = str(folder), "{title} ({genre})"
    c.report.save_model = True
    c.train.phases = (base.phase("p", epochs=1, lr_mults=base.freeze(1, layers=2)),)
    train.run(c, str(tmp_path / "run"))
    output = capsys.readouterr().out
    assert "warning: 16.7% of the test targets are repeat interactions" in output
    assert re.search(r"items without text +1\n", output)
    gap = "phase p trains layer_1 of the encoder and freezes layer_2 above it, of 3"
    assert f"warning: {gap} layers" in output
    c.eval.mask_seen = False
    c.train.phases = (base.phase("p", epochs=1, lr_mults=base.freeze(1, layers=3)),)
    train.run(c.lock(), str(tmp_path / "not"))
    output = capsys.readouterr().out
    assert "repeat interactions" not in output
    assert "warning: phase p trains" not in output


def test_other_pretrained_weights_are_another_run(config, tmp_path):
    """The directory keeps its name, but its weights change."""
    folder = shutil.copytree(TINY_BERT, tmp_path / "bert")
    c = config.unlock()
    c.text.encoder = str(folder)
    final = train.run(c, str(tmp_path / "run"))
    whole = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert final["pretrained"] == whole[:12]
    weights = load_file(folder / "model.safetensors")
    save_file({k: x * 2 for k, x in weights.items()}, folder / "model.safetensors")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(UserError, match=r"another run \(pretrained: \w+ before, "):
        train.run(c, str(tmp_path / "run"))
    c.text.pretrained = False
    assert train.run(c.lock(), str(tmp_path / "drawn"))["pretrained"] is None


def test_groups_and_lists_are_reported(config, tmp_path, monkeypatch):
    """Diversity uses the vectors of the last evaluation, which are encoded once."""
    folder = synthetic.write_atomic(tmp_path / "tiny", num_users=64)
    users = [f"u{u}\t{'MF'[u % 2]}\t{20 + u // 2}" for u in range(64)]
    header = "user_id:token\tsex:token\tage:token"
    (folder / "tiny.user").write_text("\n".join([header, *users]) + "\n")
    c = config.unlock()
    c.data.source, c.data.user_table = str(folder), True
    encoded, given = [], []
    encode, measure = ModelScorer.encode_catalogue, beyond_accuracy

    def encoding(self, params):
        encoded.append(encode(self, params))
        return encoded[-1]

    def measuring(top_RxK, events_N, k, vectors_NxD):
        given.append(vectors_NxD)
        return measure(top_RxK, events_N, k, vectors_NxD)

    monkeypatch.setattr(ModelScorer, "encode_catalogue", encoding)
    monkeypatch.setattr(results_lib, "beyond_accuracy", measuring)
    train.run(c.lock(), str(tmp_path / "run"))
    assert len(encoded) == 3  # before and after the epoch, and for the best state
    np.testing.assert_array_equal(given[-1], encoded[-1][0])

    final = json.loads((tmp_path / "run" / "results.json").read_text())
    found = final["phases"]["towers"]
    measures = {f"{name}@10" for name in ("coverage", "gini", "novelty", "head")}
    assert found["beyond_accuracy"].keys() == measures | {"diversity@10"}
    for reference in (final["zero_shot"], *final["baselines"].values()):
        assert reference["beyond_accuracy"].keys() == measures
        assert reference["valid"].keys() == final["valid"].keys()
        assert reference["subgroups"].keys() == found["subgroups"].keys()
    coverage = {
        k: x["beyond_accuracy"]["coverage@10"] for k, x in final["baselines"].items()
    }
    assert coverage["random"] == 1 > coverage["popularity"]
    assert found["subgroups"].keys() == {
        "item", "history", "popularity", "user/sex", "user/age",
    }  # fmt: skip
    for name, bucket in found["subgroups"].items():
        groups = bucket["groups"].values()
        assert sum(group["rows"] for group in groups) == 64, name
        for metric in ("hr@10", "ndcg@10"):
            whole = sum(group["rows"] * group[metric]["value"] for group in groups)
            assert whole / 64 == pytest.approx(found["test"][metric]["value"]), name
    assert found["subgroups"]["user/sex"]["largest_gap"].keys() == {"hr@10", "ndcg@10"}

    text = (tmp_path / "run" / "results.md").read_text()
    for words in (
        "| beyond accuracy ",
        "| after phase towers (",
        "| history: 6-20 ",
        "| user/age: 20-27 ",
        "- user/sex: hr@10 0.",
    ):
        assert words in text, words


@pytest.mark.parametrize(("ks", "k"), [((1, 10, 20), 10), ((2, 5), 5), ((50,), 50)])
def test_the_cut_off_of_groups_and_lists(config, tmp_path, ks, k):
    """The cut-off may be larger than the catalogue."""
    c = config.unlock()
    c.eval.ks, c.train.metric = ks, f"ndcg@{k}"
    c.report.metrics = (f"hr@{k}",)
    c.item_tower.sources = ("id",)
    found = train.run(c.lock(), str(tmp_path))["phases"]["towers"]
    assert f"diversity@{k}" in found["beyond_accuracy"]
    (group,) = found["subgroups"]["history"]["groups"].values()
    assert group.keys() == {"rows", f"hr@{k}", f"ndcg@{k}"}


def test_ratings_are_reported(config, tmp_path):
    c = config.unlock()
    c.data.rating, c.eval.like_threshold, c.loss.name = "rating", 4.0, "rating"
    final = train.run(c.lock(), str(tmp_path))
    r = final["phases"]["towers"]["rating"]
    counts = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert sum(r[c] for c in counts) == 40
    assert "predicted liked" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(("threshold", "loss"), [(0.5, "rating"), (4.0, "softmax")])
def test_likes_that_no_model_can_tell_are_not_reported(
    config, tmp_path, threshold, loss
):
    """All targets are liked, or the model was not trained for likes."""
    c = config.unlock()
    c.data.rating, c.eval.like_threshold, c.loss.name = "rating", threshold, loss
    final = train.run(c.lock(), str(tmp_path))
    assert final["phases"]["towers"]["rating"] is None


def test_half_precision_is_used(config):
    for dtype in ("float32", "bfloat16"):
        c = config.copy_and_resolve_references().unlock()
        c.train.dtype, c.item_tower.sources = dtype, ("id", "text")
        model = make_model(c, 25, load_config(TINY_BERT))
        smallest = dummy_inputs(c.data.history_length)
        variables = model.init(jax.random.key(0), *smallest)
        assert all(x.dtype == "float32" for x in jax.tree.leaves(variables))
        vectors = model.apply(
            variables,
            smallest.catalogue,
            smallest.batch.items,
            method=Recommender.encode_items,
        )
        assert vectors.dtype == dtype
        states = model.apply(  # where most of the time goes
            variables,
            smallest.catalogue,
            smallest.batch.items.packed,
            4,
            method=Recommender.encode_prefix,
        )
        assert states.dtype == dtype
        users = model.apply(
            variables,
            vectors[smallest.batch.history_BxH],
            smallest.batch.mask_BxH,
            method=Recommender.encode_users,
        )
        assert users.dtype == dtype


def test_a_cached_encoder_trains_the_same(config, tmp_path):
    """A cached frozen encoder equals one that runs in every step at learning rate 0."""
    encoder = shutil.copytree(TINY_BERT, tmp_path / "bert")
    raw = json.loads((encoder / "config.json").read_text())
    raw |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (encoder / "config.json").write_text(json.dumps(raw))
    params, values = {}, {}
    for name, rate in (("cached", None), ("plain", 0.0)):
        c = config.copy_and_resolve_references().unlock()
        c.text.encoder, c.optim.clip_norm, c.optim.eps = str(encoder), 0.0, 1e-5
        rules = ((base.ENCODER + ".*", rate), (".*", 1.0))
        c.train.phases = (base.phase("p", epochs=3, lr=1e-2, lr_mults=rules),)
        final = train.run(c.lock(), str(tmp_path / name))
        params[name], values[name] = read_params(tmp_path / name, 1), final["test"]
    for path, x in params["plain"].items():
        np.testing.assert_allclose(params["cached"][path], x, atol=1e-4, err_msg=path)
    assert values["cached"]["auc"] == pytest.approx(values["plain"]["auc"], abs=1e-3)
