"""A table of runs that were made up, so that every number in it is known."""

import csv
import json

import numpy as np
import polars as pl
import pytest

from experiments import collect

# Ranks of four rows of three users, by point and seed.
RANKS = {
    ("plain", 0): [1, 2, 11, 1],
    ("plain", 1): [1, 11, 11, 1],
    ("better", 0): [1, 1, 1, 1],
    ("better", 1): [1, 1, 2, 1],
}
USERS = ["a", "b", "b", "c"]
PROTOCOL = {
    "split": "leave_one_out",
    "candidates": "all",
    "mask_seen": True,
    "ties": "against",
    "history": 5,
}


@pytest.fixture
def runs(tmp_path):
    out = tmp_path / "runs"
    for (point, seed), ranks in RANKS.items():
        folder = out / point / str(seed)
        folder.mkdir(parents=True)
        metrics = {"ndcg@10": {"value": 0.5}, "hr@10": {"value": 0.5}}
        metrics |= {"mrr@10": {"value": 0.5}, "auc": {"value": 0.5}}
        final = {
            "fingerprint": "abc",
            "protocol": PROTOCOL,
            "seed": seed,
            "test": metrics,
            "valid": metrics,
            "baselines": {"popularity": metrics},
            "phases": {"p": {"epochs": 3}, "q": {"epochs": 2 + seed}},
            "seconds": {"train": 10.0 + seed, "total": 20.0},
            "params": {"trainable": 1234},
            "peak_memory_mib": 700,
        }
        (folder / "results.json").write_text(json.dumps(final))
        (folder / "config.json").write_text('{"train": {"metric": "ndcg@10"}}')
        columns = {"user": USERS, "popularity": [1, 11, 11, 11]}
        columns |= {"phase-p": [11] * 4, "phase-q": ranks}
        pl.DataFrame(columns).write_parquet(folder / "ranks.parquet")
    plan = {"config": "c.py", "data": "d", "seeds": [0, 1], "reference": "plain"}
    plan |= {"points": {"plain": {}, "better": {}}, "arguments": []}
    (out / "sweep.json").write_text(json.dumps(plan))
    return out


def gain(rank):
    return 1 / np.log2(1 + rank) if rank <= 10 else 0.0


def test_every_number(runs, tmp_path, capsys):
    published = tmp_path / "published.csv"
    published.write_text("name,source,hr@10,ndcg@10\nOld,Somebody 2020,0.5,\n")
    collect.main([str(runs), "--published", str(published)])
    text = capsys.readouterr().out
    assert (runs / "table.md").read_text() == text
    with (runs / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["(popularity)", "plain", "better", "Old (published)"]
    # Users count once: b's two rows are averaged.
    seeds = [(1 + gain(2) / 2 + 1) / 3, (1 + 0 + 1) / 3]
    found = [float(x) for x in rows["plain"]["ndcg@10 seeds"].split()]
    assert found == pytest.approx(seeds, abs=1e-6)
    assert float(rows["plain"]["ndcg@10"]) == pytest.approx(np.mean(seeds), abs=1e-6)
    assert float(rows["(popularity)"]["hr@10"]) == pytest.approx(1 / 3, abs=1e-6)
    better = [1.0, (1 + (1 + gain(2)) / 2 + 1) / 3]
    difference = np.mean(better) - np.mean(seeds)
    assert float(rows["better"]["difference"]) == pytest.approx(difference, abs=1e-6)
    assert float(rows["better"]["p"]) == 1.0  # one user differs: either sign is as far
    assert rows["plain"]["difference"] == rows["plain"]["p"] == ""
    assert float(rows["plain"]["epochs"]) == 5.5
    assert float(rows["plain"]["train s"]) == 10.5
    assert rows["Old (published)"]["hr@10"] == "0.500000"
    shown = f"{np.mean(seeds):.4f} ± {np.std(seeds, ddof=1):.4f} ["
    assert shown in text
    assert "| Old (published), Somebody 2020 | 0.5000 |  |" in text
    assert "python -m experiments.sweep --config=c.py --data=d --out=RUNS" in text
    assert "Protocol abc: leave_one_out, all ranked, seen items masked" in text
    assert (runs / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_another_reference(runs, capsys):
    collect.main([str(runs), "--reference", "better", "--metrics", "mrr@10"])
    with (runs / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["better"]["p"] == ""
    assert float(rows["plain"]["difference"]) < 0
    assert float(rows["plain"]["mrr@10"]) == pytest.approx((2.25 / 3 + 2 / 3) / 2)


def test_missing_runs(runs, capsys):
    (runs / "better" / "1" / "results.json").unlink()
    with pytest.raises(SystemExit) as e:
        collect.main([str(runs)])
    assert e.value.code == 2
    assert "1 runs are not finished, the first" in capsys.readouterr().err
    collect.main([str(runs), "--partial"])
    assert "1 runs are not finished and not in the table" in capsys.readouterr().out


def change(runs, key, value):
    path = runs / "better" / "1" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def other_users(runs):
    path = runs / "better" / "1" / "ranks.parquet"
    users = pl.Series("user", ["a", "b", "c", "c"])
    pl.read_parquet(path).with_columns(users).write_parquet(path)


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda runs: change(runs, "fingerprint", "xyz"), [], "cannot stand in one"),
        (other_users, [], "better/1: test rows of other users"),
        (None, ["--reference", "worse"], "no 'worse' among plain, better"),
        (None, ["--metrics", "hr@11"], "--metrics: no 'hr@11'"),
        (None, ["--metrics", "auc"], "--metrics: no 'auc'"),
        (None, ["--published", "no.csv"], "no.csv: "),
        (lambda runs: (runs / "sweep.json").unlink(), [], "sweep.json: "),
    ],
)
def test_what_cannot_be_is_one_line(runs, capsys, spoil, arguments, message):
    if spoil:
        spoil(runs)
    with pytest.raises(SystemExit) as e:
        collect.main([str(runs), *arguments])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
