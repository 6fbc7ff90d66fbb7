"""Tables of made-up runs, in which every number is known."""

import csv
import hashlib
import json
import shutil
import struct
import subprocess

import numpy as np
import polars as pl
import pytest

from experiments import collect
from experiments.tabling import caption

# Ranks of four examples of three users, by variant and seed.
RANKS = {
    ("plain", 0): [1, 2, 11, 1],
    ("plain", 1): [1, 11, 11, 1],
    ("better", 0): [1, 1, 1, 1],
    ("better", 1): [1, 1, 2, 1],
}
USERS = ["a", "b", "b", "c"]
PROTOCOL = {
    "split": "leave_one_out",
    "candidates": "all items",
    "mask_seen": True,
    "ties": "against the model",
    "history": 5,
}
# By hand: with popularity only user a has a hit, and a is drawn three times in one of
# 27 samples, which is more than the 2.5% beyond a bound. Every example counts, so
# "plain" has an HR@10 of 3/4 and 2/4. Only b, one of three users, gets
# better: from .1577, the lower bound, to .9077. One sample in 27 is b alone; (2/3)^3
# are without b.
TABLE = """\
| variant | hr@10 | ndcg@10 | difference, ndcg@10 | p | seeds | valid ndcg@10 | \
epochs | train s | all s | trained | MiB |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| (popularity) | 0.2500 [0.0000, 1.0000] | 0.2500 [0.0000, 1.0000] |  |  |  |  |  |  \
|  |  |  |
| plain | 0.6250 ± 0.1768 [0.2500, 1.0000] | 0.5789 ± 0.1115 [0.1577, 1.0000] |  |  \
| 2 | 0.5000 | 5.5 | 10 | 20 | 1,234 | 700 |
| better | 1.0000 ± 0.0000 [1.0000, 1.0000] | 0.9539 ± 0.0652 [0.9077, 1.0000] \
| +0.3750 (2/2) | 1.0000 | 2 | 0.5000 | 5.5 | 10 | 20 | 1,234 | 700 |

Test: mean over seeds 0, 1 ± standard deviation, with 95% percentile bootstrap \
intervals of this mean over users; 4 examples of 3 users. The epoch is chosen on \
validation ndcg@10. Differences are from `plain` (in parentheses: the number of seeds \
with the same sign); p is from a two-sided paired \
randomisation test over users (10,000 sign flips of the users' differences in ndcg@10, \
averaged over seeds and summed over each user's examples), with Holm's correction \
for 1 test; the smallest possible p is 0.0001. It generalises to other users of these \
trained models, not to other seeds. Rows in parentheses are not trained; they come \
from the run plain/0 and are not tested.

Protocol abc: leave_one_out, all items ranked, seen items masked, ties against the \
model, history length 5. Made at commit abc1234. Cores per run: 1.

    python -m experiments.sweep --config=c.py --data=d --out=RUNS --seeds 0 1 \
--variants plain better -- --config.data.source=DIR
    python -m experiments.collect RUNS
"""


def gain(rank):
    return 1 / np.log2(1 + rank) if rank <= 10 else 0.0


def write_run(folder, ranks, seed, users=USERS):
    """The files of a finished run that `collect` reads."""
    folder.mkdir(parents=True)
    test = {
        "hr@10": np.mean([rank <= 10 for rank in ranks]),
        "ndcg@10": np.mean([gain(rank) for rank in ranks]),
        "mrr@10": np.mean([(rank <= 10) / rank for rank in ranks]),
        "auc": 0.9,
    }
    valid = {m: {"value": 0.5} for m in test}
    popularity = {m: {"value": 0.25} for m in test}
    final = {
        "fingerprint": "abc",
        "protocol": PROTOCOL,
        "seed": seed,
        "test": {m: {"value": x} for m, x in test.items()},
        "valid": valid,
        "baselines": {"popularity": popularity},
        "phases": {"p": {"epochs": 3}, "q": {"epochs": 2 + seed}},
        "seconds": {"train": 10.0, "total": 20.0},
        "params": {"trainable": 1234},
        "peak_memory_mib": 700,
        "code": "def",
        "cores": 1,
        "pretrained": None,
    }
    (folder / "results.json").write_text(json.dumps(final))
    phases = [{"name": name, "keep": "best"} for name in "pqr"]  # r had no epochs
    train = {"metric": "ndcg@10", "phases": phases}
    config = {"train": train, "eval": {"bootstrap_samples": 200}}
    (folder / "config.json").write_text(json.dumps(config))
    columns = {"row": range(len(ranks)), "user": users}
    # Not the last column: the phase is known by name.
    columns |= {"phase-p": [11] * len(ranks), "phase-q": ranks}
    columns |= {"popularity": [1, 11, 11, 11], "events": [0, 3, 4, 9]}
    pl.DataFrame(columns).write_parquet(folder / "ranks.parquet")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(caption, "current_commit", lambda: "abc1234")
    out = tmp_path / "runs"
    for (variant, seed), ranks in RANKS.items():
        write_run(out / variant / str(seed), ranks, seed)
    plan = {"config": "c.py", "data": "d", "seeds": [0, 1]}
    plan |= {"variants": {"plain": {}, "better": {}}}
    plan["arguments"] = ["--config.data.source=x"]
    (out / "sweep.json").write_text(json.dumps(plan))
    return out


def read_rows(runs):
    with (runs / "table.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def change(path, *keys, value):
    found = json.loads(path.read_text())
    inner = found
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(found))


def test_the_table(runs, capsys):
    collect.main([str(runs)])
    assert capsys.readouterr().out == TABLE
    assert (runs / "table.md").read_text() == TABLE


def test_a_phase_that_keeps_nothing_is_named(runs, capsys):
    """Runs without `kept_epoch` are older; a phase that keeps an epoch has no note."""
    for variant, seed, phase, kept in (
        ("plain", 0, "q", 2),
        ("better", 0, "p", 0),
        ("better", 0, "q", 0),
        ("better", 1, "p", 3),
        ("better", 1, "q", 0),
    ):
        path = runs / variant / str(seed) / "results.json"
        change(path, "phases", phase, "kept_epoch", value=kept)
    collect.main([str(runs)])
    note = (
        "better: phase p kept nothing in 1 of 2 seeds; better: phase q kept nothing in "
        "2 of 2 seeds (no epoch was better on validation than the start of the phase)."
    )
    assert f"\n\n{note}\n\n" in capsys.readouterr().out


def test_the_csv(runs, tmp_path):
    collect.main([str(runs), "--out", str(tmp_path / "out")])
    assert not (runs / "table.csv").exists()
    assert (tmp_path / "out" / "plot.png").read_bytes()[:4] == b"\x89PNG"
    rows = read_rows(tmp_path / "out")
    assert list(rows) == ["(popularity)", "plain", "better"]
    seeds = [(1 + gain(2) + 1) / 4, (1 + 0 + 1) / 4]
    row = rows["plain"]
    found = [float(x) for x in row["ndcg@10 seeds"].split()]
    assert found == pytest.approx(seeds, abs=1e-6)
    assert float(row["ndcg@10"]) == pytest.approx(np.mean(seeds), abs=1e-6)
    assert float(row["ndcg@10 sd"]) == pytest.approx(np.std(seeds, ddof=1), abs=1e-6)
    assert row["difference"] == row["p"] == ""
    # The first and the last row have none, the others are both of b.
    before, after = np.mean([gain(2), 0, 0, 0]), np.mean([1, 1, 1, gain(2)])
    difference = (after - before) * 2 / 4
    assert float(rows["better"]["difference"]) == pytest.approx(difference, abs=1e-6)
    assert rows["(popularity)"]["ndcg@10 seeds"] == "0.250000"
    assert rows["(popularity)"]["ranks"] == ""
    digests = [
        hashlib.sha256(struct.pack("<4i", *RANKS["plain", seed])).hexdigest()[:16]
        for seed in (0, 1)
    ]
    assert row["ranks"] == f"0:{digests[0]} 1:{digests[1]}"
    columns = list(row)
    assert columns[columns.index("p") + 1] == "ranks"


def test_a_group_of_targets(runs, capsys):
    """Those of b have 3 and 4 training events, the others none and 9."""
    collect.main([str(runs), "--items=cold"])
    text = capsys.readouterr().out
    assert "The validation metric covers all items." in text
    assert "; 2 examples of 1 user with cold targets (1 to 4 training events)." in text
    assert "experiments.collect RUNS --items=cold" in text
    rows = read_rows(runs)
    digests = rows["plain"]["ranks"]
    assert [float(x) for x in rows["plain"]["hr@10 seeds"].split()] == [0.5, 0.0]
    assert float(rows["(popularity)"]["hr@10"]) == 0.0
    want = (1 + 1 + 1 + gain(2)) / 4 - gain(2) / 4
    assert float(rows["better"]["difference"]) == pytest.approx(want, abs=1e-6)
    collect.main([str(runs), "--items=new"])
    assert float(read_rows(runs)["(popularity)"]["hr@10"]) == 1.0
    assert read_rows(runs)["plain"]["ranks"] == digests  # of all rows


def test_missing_targets(runs, capsys):
    path = runs / "plain" / "0" / "ranks.parquet"
    table = pl.read_parquet(path)
    table.with_columns(events=pl.lit(7)).write_parquet(path)
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(runs), "--items=new"])
    assert "no test example has a new target" in capsys.readouterr().err
    table.drop("events").write_parquet(path)
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(runs), "--items=new"])
    assert "has no column with the training events" in capsys.readouterr().err


def test_the_signs_of_a_user_are_flipped_together(tmp_path, capsys):
    """Ten users with one row are better by .5, one with thirty is worse by .37.

    That one's sign is that of the sum, and whatever the others' are, it is as far.
    """
    users = [f"u{i}" for i in range(10)] + ["many"] * 30
    ranks = {"plain": [3] * 10 + [1] * 30, "better": [1] * 10 + [2] * 30}
    for variant, each in ranks.items():
        write_run(tmp_path / variant / "0", each[:4], 0)
        folder = tmp_path / variant / "0"
        change(folder / "results.json", "baselines", value={})
        for name, value in (("hr@10", 1), ("mrr@10", np.mean(1 / np.array(each)))):
            change(folder / "results.json", "test", name, "value", value=value)
        value = np.mean([gain(x) for x in each])
        change(folder / "results.json", "test", "ndcg@10", "value", value=value)
        table = pl.DataFrame({"user": users, "phase-q": each})
        table.write_parquet(folder / "ranks.parquet")
    plan = {"config": "c.py", "data": None, "seeds": [0], "arguments": []}
    plan["variants"] = {"plain": {}, "better": {}}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    collect.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "Test: one seed (0), with" in out
    row = read_rows(tmp_path)["better"]
    want = (10 * 0.5 + 30 * (gain(2) - 1)) / 40
    assert float(row["difference"]) == pytest.approx(want, abs=1e-6)
    assert float(row["ndcg@10"]) < float(read_rows(tmp_path)["plain"]["ndcg@10"])
    assert float(row["p"]) == 1.0


def test_several_tests_are_corrected(runs):
    """p of one user that differs is 1; of all three 2 / 8, twice that with Holm's."""
    for seed in (0, 1):
        write_run(runs / "worse" / str(seed), [11, 11, 11, 11], seed)
    change(
        runs / "sweep.json", "variants", value={"plain": {}, "better": {}, "worse": {}}
    )
    collect.main([str(runs)])
    rows = read_rows(runs)
    assert float(rows["worse"]["p"]) == pytest.approx(2 * 2 / 8, abs=0.03)
    assert float(rows["better"]["p"]) == 1.0
    assert "Holm's correction for 2 tests" in (runs / "table.md").read_text()


def test_another_reference_metric_title_and_axis(runs, capsys):
    made = ["--reference=better", "--title=A | B's", "--x=params"]
    collect.main([str(runs), *made, "--metrics", "mrr@10"])
    out = capsys.readouterr().out
    assert out.startswith("# A | B's\n\n| variant | mrr@10 | difference, ndcg@10 |")
    assert out.endswith(
        "    python -m experiments.collect RUNS --reference=better "
        "'--title=A | B'\"'\"'s' --x=params --metrics mrr@10\n"
    )
    assert "come from the run better/0" in out
    rows = read_rows(runs)
    assert rows["better"]["p"] == ""
    assert float(rows["plain"]["difference"]) < 0
    assert float(rows["plain"]["mrr@10"]) == pytest.approx((2.5 / 4 + 2 / 4) / 2)


def test_a_baseline_as_reference(runs, capsys):
    """Asked for as the table names it; every variant is tested against it."""
    collect.main([str(runs), "--reference=(popularity)", "--tested=hr@10"])
    out = capsys.readouterr().out
    assert "| difference, hr@10 | p |" in out
    assert "Differences are from `(popularity)` (in parentheses" in out
    assert "differences in hr@10, averaged" in out
    assert "Holm's correction for 2 tests" in out
    assert "RUNS '--reference=(popularity)' --tested=hr@10\n" in out
    rows = read_rows(runs)
    assert float(rows["plain"]["difference"]) == pytest.approx(2.5 / 4 - 1 / 4)
    each = [float(x) for x in rows["plain"]["difference seeds"].split()]
    assert each == [0.5, 0.25]
    for flag, said in (
        ("--reference=(counts)", "plain/0 has no (counts); choose from (popularity)"),
        ("--reference=counts", "choose from plain, better, or write"),
        ("--tested=auc", "--tested: no metric 'auc'; choose from"),
    ):
        with pytest.raises(SystemExit, match="2"):
            collect.main([str(runs), flag])
        assert said in capsys.readouterr().err


def test_a_baseline_is_of_each_run(runs, capsys):
    """One that is drawn, or depends on the variant, is not that of another run."""
    run = runs / "better" / "1"
    ranks = pl.read_parquet(run / "ranks.parquet")
    ranks = ranks.with_columns(popularity=pl.Series([11, 11, 11, 11]))
    ranks.write_parquet(run / "ranks.parquet")
    for metric in ("hr@10", "ndcg@10", "mrr@10", "auc"):
        change(
            run / "results.json", "baselines", "popularity", metric, "value", value=0
        )
    collect.main([str(runs), "--reference=(popularity)", "--tested=hr@10"])
    each = [float(x) for x in read_rows(runs)["better"]["difference seeds"].split()]
    assert each == [0.75, 1.0]
    change(run / "results.json", "baselines", value={})
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(runs), "--reference=(popularity)"])
    assert f"--reference: {run} has no (popularity)" in capsys.readouterr().err


def test_the_number_of_seeds_with_the_same_sign(runs, capsys):
    """Of those that both have, each with itself, in whatever order."""
    write_run(runs / "better" / "2", [11, 11, 11, 11], 2)
    write_run(runs / "plain" / "2", [1, 1, 1, 1], 2)
    change(runs / "sweep.json", "seeds", value=[0, 1, 2])
    collect.main([str(runs)])
    assert "-0.0833 (1/3) |" in capsys.readouterr().out
    shutil.rmtree(runs / "better" / "0")
    collect.main([str(runs), "--partial"])
    each = [float(x) for x in read_rows(runs)["better"]["difference seeds"].split()]
    assert each == pytest.approx([(1 + gain(2)) / 4, -1.0], abs=1e-6)


def test_a_table_is_written_whole_or_not_at_all(runs, monkeypatch, capsys):
    def broken(path, *args, **more):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    collect.main([str(runs)])
    before = {path: path.read_bytes() for path in runs.iterdir() if path.is_file()}
    monkeypatch.setattr(collect, "plot", broken)
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(runs), "--title=another"])
    assert "No space left on device" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in runs.iterdir() if path.is_file()}
    assert after == before


def test_plotted_metrics(runs, monkeypatch):
    asked = []

    def plot(path, *args, **more):
        path.touch()
        asked.append(((path, *args), more))

    monkeypatch.setattr(collect, "plot", plot)
    collect.main([str(runs), "--reference=better", "--title=A"])
    collect.main([str(runs), "--x=params", "--metrics", "mrr@10", "hr@10"])
    (first, options), (second, others) = asked
    assert first[2] == ["hr@10", "ndcg@10"]
    assert options == {"reference": "better", "x": "seconds", "title": "A"}
    assert second[2] == ["mrr@10"]  # the tested one has no column
    assert others == {"reference": "plain", "x": "params", "title": ""}
    assert [row.name for row in second[1]] == ["popularity", "plain", "better"]


def test_an_epoch_chosen_by_another_metric_than_ranks_give(runs, capsys):
    """AUC needs the number of candidates: the first metric is tested instead."""
    for variant, seed in RANKS:
        path = runs / variant / str(seed) / "config.json"
        change(path, "train", "metric", value="auc")
    collect.main([str(runs)])
    out = capsys.readouterr().out
    assert "| difference, hr@10 | p | seeds | valid auc |" in out
    assert "differences in hr@10" in out


def test_variants_that_keep_the_last_epoch_are_named(runs, capsys):
    def keep(variant, *kept):
        phases = [{"name": k, "keep": x} for k, x in zip("pqr", kept, strict=True)]
        for seed in (0, 1):
            path = runs / variant / str(seed) / "config.json"
            change(path, "train", "phases", value=phases)
        collect.main([str(runs)])
        return capsys.readouterr().out

    assert "ndcg@10; better use the last epoch." in keep("better", *["last"] * 3)
    out = keep("plain", "best", "last", "best")
    assert "The parameters after the last epoch are tested." in out
    assert "The epoch is chosen" not in out
    assert "validation ndcg@10; better" in keep("plain", "last", "best", "last")


def test_published_rows(runs, tmp_path, capsys):
    path = tmp_path / "published.csv"
    path.write_text("name,source,note,hr@10,ndcg@10\nOld,Me 2020,a | b,0.5,\n")
    collect.main([str(runs), "--published", str(path)])
    out = capsys.readouterr().out
    assert r"| Old (published), Me 2020; a \| b | 0.5000 |  |  |" in out
    assert "Published rows are copied from their sources" in out
    row = read_rows(runs)["Old (published)"]
    assert (row["hr@10"], row["ndcg@10"], row["p"]) == ("0.500000", "", "")
    assert (row["source"], row["note"]) == ("Me 2020", "a | b")


def test_a_published_value_near_zero(runs, tmp_path, capsys):
    """Four decimals would round it to zero."""
    path = tmp_path / "published.csv"
    path.write_text("name,source,hr@10,ndcg@10\nOld,Me 2020,0.00004,0\n")
    collect.main([str(runs), "--published", str(path)])
    assert "| Old (published), Me 2020 | 4.0e-05 | 0.0000 |" in capsys.readouterr().out


def test_different_cores_are_named(runs, capsys):
    change(last(runs), "cores", value=2)
    collect.main([str(runs)])
    said = "Made at commit abc1234. Cores per run: 1 (plain, better); 2 (better).\n"
    assert said in capsys.readouterr().out


def test_the_commit_of_the_page(tmp_path, monkeypatch):
    """Uncommitted changes count in the package and the configs only."""

    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    for name in ("recjax", "configs", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.setattr(caption.recjax, "__file__", str(tmp_path / "recjax/a.py"))
    assert caption.current_commit() == ""
    git("init")
    assert caption.current_commit() == ""  # nothing is committed
    git("add", ".")
    git("commit", "-m", "first")
    commit = caption.current_commit()
    head = subprocess.check_output(["git", "-C", str(tmp_path), "rev-parse", "HEAD"])
    assert head.decode().startswith(commit)
    assert len(commit) == 7
    (tmp_path / "experiments" / "__init__.py").write_text("1")
    assert caption.current_commit() == commit
    (tmp_path / "configs" / "new.py").touch()
    assert caption.current_commit() == f"{commit}, with uncommitted changes"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert caption.current_commit() == ""


def test_a_page_outside_a_checkout(runs, monkeypatch, capsys):
    monkeypatch.setattr(caption, "current_commit", lambda: "")
    collect.main([str(runs)])
    assert "history length 5. Cores per run: 1.\n" in capsys.readouterr().out


def test_different_pretrained_weights_are_named(runs, capsys):
    collect.main([str(runs)])
    assert "pretrained" not in capsys.readouterr().out
    change(last(runs), "pretrained", value="b")
    collect.main([str(runs)])
    said = "Digest of the pretrained weights: b (better); none (plain, better).\n"
    assert said in capsys.readouterr().out


def test_a_subset_of_variants(runs, capsys):
    for seed in (0, 1):
        write_run(runs / "worse" / str(seed), [11, 11, 11, 11], seed)
    every = {"plain": {}, "odd": {}, "better": {}, "worse": {}}
    change(runs / "sweep.json", "variants", value=every)
    collect.main([str(runs), "--variants", "worse", "better"])  # odd never ran
    said = capsys.readouterr().out
    assert list(read_rows(runs)) == ["(popularity)", "better", "worse"]
    assert "Differences are from `better`" in said
    assert said.endswith("experiments.collect RUNS --variants worse better\n")


def test_missing_runs_are_named(runs, capsys):
    (runs / "better" / "1" / "results.json").unlink()
    shutil.rmtree(runs / "plain" / "0")
    with pytest.raises(SystemExit) as e:
        collect.main([str(runs)])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 of 4 runs are not finished: plain/0, better/1; --partial" in line
    collect.main([str(runs), "--partial"])
    out = capsys.readouterr().out
    assert "2 of 4 runs are not finished and not in the table: plain/0, better/1" in out
    assert "come from the run plain/1" in out
    assert "--partial" in out.splitlines()[-1]
    assert "Test: one seed (1) (better: 0), with" in out


def test_variants_of_fewer_seeds_are_named(runs, capsys):
    (runs / "better" / "1" / "results.json").unlink()
    collect.main([str(runs), "--partial"])
    means = "mean over seeds 0, 1 ± standard deviation (better: 0), with"
    assert means in capsys.readouterr().out
    (runs / "plain" / "1" / "results.json").unlink()
    collect.main([str(runs), "--partial"])
    assert "Test: one seed (0), with" in capsys.readouterr().out
    shutil.rmtree(runs / "better")
    collect.main([str(runs), "--partial"])
    out = capsys.readouterr().out
    assert "| better" not in out
    assert "not in the table: plain/1, better/0, better/1" in out
    assert "randomisation" not in out  # nothing is tested


def spoil_ranks(runs, **columns):
    path = runs / "better" / "1" / "ranks.parquet"
    series = [pl.Series(k.replace("_", "-"), x) for k, x in columns.items()]
    pl.read_parquet(path).with_columns(series).write_parquet(path)


def last(runs, name="results.json"):
    return runs / "better" / "1" / name


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (
            lambda runs: change(last(runs), "fingerprint", value="xyz"),
            [],
            "plain/0 and {runs}/better/1 cannot be compared",
        ),
        (
            lambda runs: spoil_ranks(runs, user=["a", "b", "c", "c"]),
            [],
            "better/1 and {runs}/plain/0: the test examples are of different users",
        ),
        (
            lambda runs: spoil_ranks(runs, phase_q=[1, 1, 3, 1]),
            [],
            "better/1/ranks.parquet: does not fit results.json (phase-q, ndcg@10)",
        ),
        (
            lambda runs: spoil_ranks(runs, popularity=[1, 1, 11, 11]),
            [],
            "does not fit results.json (popularity, hr@10)",
        ),
        (
            lambda runs: change(last(runs), "baselines", value={"ease": {}}),
            [],
            'better/1/ranks.parquet: "ease" not found',
        ),
        (
            lambda runs: change(
                last(runs, "config.json"), "train", "metric", value="hr@10"
            ),
            [],
            "different metrics chose the epoch",
        ),
        (
            lambda runs: change(last(runs), "phases", value={"r": {"epochs": 1}}),
            [],
            "better/1/ranks.parquet: ",
        ),
        (lambda runs: last(runs, "ranks.parquet").unlink(), [], "ranks.parquet: "),
        (lambda runs: last(runs).write_text("{"), [], "the next sweep runs it again"),
        (lambda runs: last(runs).write_text("{}"), [], "damaged or too old, no 'base"),
        (lambda runs: (runs / "sweep.json").unlink(), [], "runs: no sweep.json; "),
        (
            lambda runs: (runs / "sweep.json").write_text('{"config": "", "data": ""}'),
            [],
            "sweep.json: damaged, no 'arguments'",
        ),
        (
            lambda runs: shutil.rmtree(runs / "plain"),
            ["--partial"],
            "the reference 'plain' has no finished run",
        ),
        (None, ["--reference", "worse"], "no 'worse'; choose from plain, better"),
        (None, ["--variants", "worse"], "--variants: no 'worse'; choose from plain"),
        (None, ["--metrics", "hr@11"], "no metric 'hr@11'; choose from hr@10, ndcg@10"),
        (None, ["--metrics", "hr@10", "auc"], "--metrics: no metric 'auc'"),
        (None, ["--published", "no.csv"], "--published no.csv: No such file"),
        (None, ["--out", "setup.cfg"], "--out setup.cfg: File exists"),
    ],
)
def test_errors_are_one_line(runs, capsys, spoil, arguments, message):
    if spoil:
        spoil(runs)
    with pytest.raises(SystemExit) as e:
        collect.main([str(runs), *arguments])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(runs=runs) in line
    assert not (runs / "table.md").exists()


def test_a_plot_is_drawn_again(runs, tmp_path, monkeypatch, capsys):
    """From the files alone: the rows, metrics and options are those of the table."""
    plots = []

    def plot(path, rows, metrics, **options):
        path.touch()
        shown = [(x.label, x.kind, {m: x.values.get(m) for m in metrics}) for x in rows]
        plots.append((shown, metrics, options))
        costs.append([{"train s": x.cost["train s"]} for x in rows if x.cost])

    costs = []
    monkeypatch.setattr(collect, "plot", plot)
    published = tmp_path / "published.csv"
    published.write_text("name,source,hr@10,ndcg@10\nOld,Me 2020,0.5,\n")
    asked = [f"--published={published}", "--title=A", "--reference=better"]
    collect.main([str(runs), *asked, "--metrics", "mrr@10", "hr@10", "ndcg@10"])
    out = tmp_path / "out"
    out.mkdir()
    for name in ("table.md", "table.csv"):
        shutil.copy(runs / name, out)
    collect.main([str(out), "--redraw"])
    assert sorted(x.name for x in out.iterdir()) == [
        "plot.png",
        "table.csv",
        "table.md",
    ]
    elsewhere = tmp_path / "new" / "directory"
    collect.main([str(out), "--redraw", f"--out={elsewhere}"])
    assert [x.name for x in elsewhere.iterdir()] == ["plot.png"]
    (first, *more), (second, *again), _ = plots
    assert more == again
    assert costs[0] == costs[1]
    for (*own, values), (*other, read) in zip(first, second, strict=True):
        assert own == other
        for metric, x in values.items():
            assert read[metric] == (x and pytest.approx(x, abs=1e-6))
    (out / "table.csv").write_text("name\nplain\n")
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(out), "--redraw"])
    assert "table.csv: damaged" in capsys.readouterr().err
