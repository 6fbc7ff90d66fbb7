"""Runs in one table, and runs that cannot be compared."""

import json
import sys

import pytest

from experiments.sweeping.load import read_results
from recjax.common.errors import UserError
from recjax.config import base
from recjax.reporting import compare
from recjax.run import train


@pytest.fixture
def run(config, tmp_path):
    def make(name, **changes):
        c = config.copy_and_resolve_references().unlock()
        c.item_tower.sources = ("id",)
        c.train.phases = (base.phase("p", epochs=1),)
        c.update_from_flattened_dict(changes)
        return train.run(c.lock(), str(tmp_path / name))

    return make


def main(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, args)])
    compare.main()


def test_runs_of_one_protocol_are_in_one_table(run, tmp_path, monkeypatch, capsys):
    a, b = run("a"), run("b", **{"seed": 1, "user_tower.name": "mean"})
    capsys.readouterr()
    main(monkeypatch, tmp_path / "a", tmp_path / "b", "--metrics", "ndcg@10")
    out = capsys.readouterr().out
    for name, seed, final in (("a", 0, a), ("b", 1, b)):
        value = final["test"]["ndcg@10"]["value"]
        assert f"| {tmp_path / name}, seed {seed} | {value:.4f} [" in out
    assert "(popularity)" in out


def test_sampled_candidates_come_with_a_warning(run, capsys):
    run("whole")
    assert "ranked among" not in capsys.readouterr().out
    final = run("drawn", **{"eval.candidates": 5})
    assert "ranked among only 5 sampled items" in capsys.readouterr().out
    assert final["protocol"]["candidates"] == "5 drawn for each target by seed 0"
    assert final["test"]["hr@10"]["value"] == 1  # of six


RESULTS = {"fingerprint": "a", "protocol": {}, "seed": 0, "test": {}, "baselines": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"seed": 1}, "results.json: not the results of a run: 'fingerprint' is miss"),
        ({**RESULTS, "baselines": 3}, "'baselines' is missing or damaged"),
        (
            {**RESULTS, "baselines": {"a": 3}},
            "results of a run: 'baselines' is damaged",
        ),
        (RESULTS, "has no metric 'hr@10'"),
        ({**RESULTS, "test": {"hr@10": {"value": None}}}, "has no metric 'hr@10'"),
    ],
)
def test_files_that_are_no_results_are_refused(
    tmp_path, monkeypatch, capsys, content, message
):
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="2"):
        main(monkeypatch, tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("old", [{"before": {}}, {"phases": {"p": {"buckets": {}}}}])
def test_results_of_an_older_version_are_refused(run, tmp_path, old):
    """By compare, by a sweep, and by the run directory itself."""
    final = run("a")
    path = tmp_path / "a" / "results.json"
    path.write_text(json.dumps(final | old))
    readers = (
        lambda folder: compare.read_runs([folder]),
        read_results,
        lambda _: run("a"),
    )
    for read in readers:
        with pytest.raises(UserError, match="by an older version of recjax; run it"):
            read(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        (
            {"eval.mask_seen": False},
            "mask_seen: True in the first, False in the second",
        ),
        ({"eval.candidates": 5}, "candidates: all items in the first, 5 drawn"),
        ({"data.history_length": 4}, "history: 6 in the first, 4"),
        (
            {"data.min_rating": 2.0, "data.rating": "rating"},
            "min_rating: nothing in the first, rating >= 2 in the second",
        ),
        ({"data.cold_items": 0.2}, "cold_items"),
    ],
)
def test_other_protocols_are_refused(
    run, tmp_path, monkeypatch, capsys, changes, differs
):
    run("a"), run("b", **changes)
    capsys.readouterr()
    with pytest.raises(SystemExit) as e:
        main(monkeypatch, tmp_path / "a", tmp_path / "b")
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be compared" in line
    assert differs in line


def test_a_directory_without_a_run_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as e:
        main(monkeypatch, tmp_path)
    assert e.value.code == 2
    assert "not a finished run" in capsys.readouterr().err
