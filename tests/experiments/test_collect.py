"""A table of runs that were made up, so that every number in it is known."""

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
    "candidates": "all items",
    "mask_seen": True,
    "ties": "against the model",
    "history": 5,
}
# By hand: of the popularity a alone gets something, and is drawn three times in one
# sample of 27, more than the 2.5% beyond a bound. Every row counts, so that "plain" has
# an HR@10 of 3/4 and 2/4. Only b, one of three users, gets better: from .1577, the
# lower bound, to .9077. One sample in 27 is b alone; (2/3)^3 are without b.
TABLE = """\
|  | hr@10 | ndcg@10 | difference, ndcg@10 | p | seeds | valid ndcg@10 | \
epochs | train s | all s | trained | MiB |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| (popularity) | 0.2500 [0.0000, 1.0000] | 0.2500 [0.0000, 1.0000] |  |  |  |  |  |  \
|  |  |  |
| plain | 0.6250 ± 0.1768 [0.2500, 1.0000] | 0.5789 ± 0.1115 [0.1577, 1.0000] |  |  \
| 2 | 0.5000 | 5.5 | 10 | 20 | 1,234 | 700 |
| better | 1.0000 ± 0.0000 [1.0000, 1.0000] | 0.9539 ± 0.0652 [0.9077, 1.0000] \
| +0.3750 (2/2) | 1.0000 | 2 | 0.5000 | 5.5 | 10 | 20 | 1,234 | 700 |

Test: means of seeds 0, 1 ± their standard deviation, with 95% percentile bootstrap \
intervals over users of the seeds' mean; 4 rows of 3 users. The epoch is chosen on \
validation ndcg@10. Difference from `plain` (in parentheses: in how many of the seeds \
it has this sign), with p of a two-sided paired \
randomisation test over users (10,000 sign flips of the users' differences in ndcg@10, \
averaged over seeds and summed over each user's rows), corrected by Holm for 1 test; \
the least that so many flips can give is 0.0001. It asks what other users would make \
of these trained states, not what other seeds would give. Rows in parentheses are not \
trained, of the run plain/0 alone, and not tested.

Protocol abc: leave_one_out, all items ranked, seen items masked, ties against the \
model, history of 5. Made at commit abc1234. Cores of a run: 1.

    python -m experiments.sweep --config=c.py --data=d --out=RUNS --seeds 0 1 --points \
plain better -- --config.data.source=DIR
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
    monkeypatch.setattr(collect, "current_commit", lambda: "abc1234")
    out = tmp_path / "runs"
    for (point, seed), ranks in RANKS.items():
        write_run(out / point / str(seed), ranks, seed)
    plan = {"config": "c.py", "data": "d", "seeds": [0, 1]}
    plan |= {"points": {"plain": {}, "better": {}}}
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


def test_some_targets_alone(runs, capsys):
    """Those of b have 3 and 4 training events, the others none and 9."""
    collect.main([str(runs), "--items=cold"])
    text = capsys.readouterr().out
    assert "The validation figures are over all its rows." in text
    assert "; 2 rows of 1 user whose targets are cold (recjax/buckets.py)." in text
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


def test_targets_that_there_are_none_of(runs, capsys):
    path = runs / "plain" / "0" / "ranks.parquet"
    table = pl.read_parquet(path)
    table.with_columns(events=pl.lit(7)).write_parquet(path)
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(runs), "--items=new"])
    assert "no test row has a target that is new" in capsys.readouterr().err
    table.drop("events").write_parquet(path)
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(runs), "--items=new"])
    assert "has no training events of targets" in capsys.readouterr().err


def test_the_rows_of_a_user_are_flipped_together(tmp_path, capsys):
    """Ten users with one row are better by .5, one with thirty is worse by .37.

    That one's sign is that of the sum, and whatever the others' are, it is as far.
    """
    users = [f"u{i}" for i in range(10)] + ["many"] * 30
    ranks = {"plain": [3] * 10 + [1] * 30, "better": [1] * 10 + [2] * 30}
    for point, each in ranks.items():
        write_run(tmp_path / point / "0", each[:4], 0)
        folder = tmp_path / point / "0"
        change(folder / "results.json", "baselines", value={})
        for name, value in (("hr@10", 1), ("mrr@10", np.mean(1 / np.array(each)))):
            change(folder / "results.json", "test", name, "value", value=value)
        value = np.mean([gain(x) for x in each])
        change(folder / "results.json", "test", "ndcg@10", "value", value=value)
        table = pl.DataFrame({"user": users, "phase-q": each})
        table.write_parquet(folder / "ranks.parquet")
    plan = {"config": "c.py", "data": None, "seeds": [0], "arguments": []}
    plan["points"] = {"plain": {}, "better": {}}
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
        runs / "sweep.json", "points", value={"plain": {}, "better": {}, "worse": {}}
    )
    collect.main([str(runs)])
    rows = read_rows(runs)
    assert float(rows["worse"]["p"]) == pytest.approx(2 * 2 / 8, abs=0.03)
    assert float(rows["better"]["p"]) == 1.0
    assert "corrected by Holm for 2 tests" in (runs / "table.md").read_text()


def test_another_reference_metric_title_and_axis(runs, capsys):
    made = ["--reference=better", "--title=A | B's", "--x=params"]
    collect.main([str(runs), *made, "--metrics", "mrr@10"])
    out = capsys.readouterr().out
    assert out.startswith("# A | B's\n\n|  | mrr@10 | difference, ndcg@10 |")
    assert out.endswith(
        "    python -m experiments.collect RUNS --reference=better "
        "'--title=A | B'\"'\"'s' --x=params --metrics mrr@10\n"
    )
    assert "of the run better/0 alone" in out
    rows = read_rows(runs)
    assert rows["better"]["p"] == ""
    assert float(rows["plain"]["difference"]) < 0
    assert float(rows["plain"]["mrr@10"]) == pytest.approx((2.5 / 4 + 2 / 4) / 2)


def test_a_baseline_as_reference(runs, capsys):
    """Asked for as the table names it; every point is tested against it."""
    collect.main([str(runs), "--reference=(popularity)", "--tested=hr@10"])
    out = capsys.readouterr().out
    assert "| difference, hr@10 | p |" in out
    assert "Difference from `(popularity)` (in parentheses" in out
    assert "differences in hr@10, averaged" in out
    assert "Holm for 2 tests" in out
    assert "RUNS '--reference=(popularity)' --tested=hr@10\n" in out
    rows = read_rows(runs)
    assert float(rows["plain"]["difference"]) == pytest.approx(2.5 / 4 - 1 / 4)
    each = [float(x) for x in rows["plain"]["difference seeds"].split()]
    assert each == [0.5, 0.25]
    for flag, said in (
        ("--reference=(counts)", "plain/0 has no (counts), but (popularity)"),
        ("--reference=counts", "among plain, better; a baseline is asked for as"),
        ("--tested=auc", "--tested: no 'auc' among"),
    ):
        with pytest.raises(SystemExit, match="2"):
            collect.main([str(runs), flag])
        assert said in capsys.readouterr().err


def test_a_baseline_is_of_each_run(runs, capsys):
    """One that is drawn, or depends on the point, is not that of another run."""
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


def test_in_how_many_seeds_it_is_better(runs, capsys):
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


def test_what_is_plotted(runs, monkeypatch):
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


def test_an_epoch_chosen_by_what_ranks_do_not_give(runs, capsys):
    """AUC needs the number of candidates: the first metric is tested instead."""
    for point, seed in RANKS:
        path = runs / point / str(seed) / "config.json"
        change(path, "train", "metric", value="auc")
    collect.main([str(runs)])
    out = capsys.readouterr().out
    assert "| difference, hr@10 | p | seeds | valid auc |" in out
    assert "differences in hr@10" in out


def test_no_epoch_is_chosen_where_the_last_phase_keeps_its_last(runs, capsys):
    def keep(point, *kept):
        phases = [{"name": k, "keep": x} for k, x in zip("pqr", kept, strict=True)]
        for seed in (0, 1):
            path = runs / point / str(seed) / "config.json"
            change(path, "train", "phases", value=phases)
        collect.main([str(runs)])
        return capsys.readouterr().out

    assert "ndcg@10, but in better it is the last." in keep("better", *["last"] * 3)
    out = keep("plain", "best", "last", "best")
    assert "The state is that after the last epoch." in out
    assert "The epoch is chosen" not in out
    assert "validation ndcg@10, but in better" in keep("plain", "last", "best", "last")


def test_published_rows(runs, tmp_path, capsys):
    path = tmp_path / "published.csv"
    path.write_text("name,source,note,hr@10,ndcg@10\nOld,Me 2020,a | b,0.5,\n")
    collect.main([str(runs), "--published", str(path)])
    out = capsys.readouterr().out
    assert r"| Old (published), Me 2020; a \| b | 0.5000 |  |  |" in out
    assert "Published rows are as their sources give them" in out
    row = read_rows(runs)["Old (published)"]
    assert (row["hr@10"], row["ndcg@10"], row["p"]) == ("0.500000", "", "")
    assert (row["source"], row["note"]) == ("Me 2020", "a | b")


def test_published_figures_of_next_to_nothing(runs, tmp_path, capsys):
    """Four decimals would make them nothing."""
    path = tmp_path / "published.csv"
    path.write_text("name,source,hr@10,ndcg@10\nOld,Me 2020,0.00004,0\n")
    collect.main([str(runs), "--published", str(path)])
    assert "| Old (published), Me 2020 | 4.0e-05 | 0.0000 |" in capsys.readouterr().out


def test_other_cores_are_said_to_be(runs, capsys):
    change(last(runs), "cores", value=2)
    collect.main([str(runs)])
    said = "Made at commit abc1234. Cores of a run: 1 (plain, better); 2 (better).\n"
    assert said in capsys.readouterr().out


def test_the_commit_of_the_page(tmp_path, monkeypatch):
    """Of the checkout, with what results depend on that is not committed."""

    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    for name in ("recjax", "configs", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.setattr(collect.recjax, "__file__", str(tmp_path / "recjax/a.py"))
    assert collect.current_commit() == ""
    git("init")
    assert collect.current_commit() == ""  # nothing is committed
    git("add", ".")
    git("commit", "-m", "first")
    commit = collect.current_commit()
    head = subprocess.check_output(["git", "-C", str(tmp_path), "rev-parse", "HEAD"])
    assert head.decode().startswith(commit)
    assert len(commit) == 7
    (tmp_path / "experiments" / "__init__.py").write_text("1")
    assert collect.current_commit() == commit
    (tmp_path / "configs" / "new.py").touch()
    assert collect.current_commit() == f"{commit}, with uncommitted changes"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect.current_commit() == ""


def test_a_page_outside_a_checkout(runs, monkeypatch, capsys):
    monkeypatch.setattr(collect, "current_commit", lambda: "")
    collect.main([str(runs)])
    assert "history of 5. Cores of a run: 1.\n" in capsys.readouterr().out


def test_other_pretrained_weights_are_said_to_be(runs, capsys):
    collect.main([str(runs)])
    assert "pretrained" not in capsys.readouterr().out
    change(last(runs), "pretrained", value="b")
    collect.main([str(runs)])
    said = "Digest of the pretrained weights: b (better); none (plain, better).\n"
    assert said in capsys.readouterr().out


def test_some_points_alone(runs, capsys):
    for seed in (0, 1):
        write_run(runs / "worse" / str(seed), [11, 11, 11, 11], seed)
    every = {"plain": {}, "odd": {}, "better": {}, "worse": {}}
    change(runs / "sweep.json", "points", value=every)
    collect.main([str(runs), "--points", "worse", "better"])  # odd never ran
    said = capsys.readouterr().out
    assert list(read_rows(runs)) == ["(popularity)", "better", "worse"]
    assert "Difference from `better`" in said
    assert said.endswith("experiments.collect RUNS --points worse better\n")


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
    assert "of the run plain/1 alone" in out
    assert "--partial" in out.splitlines()[-1]
    assert "Test: one seed (1) (better: of 0), with" in out


def test_points_of_fewer_seeds_are_named(runs, capsys):
    (runs / "better" / "1" / "results.json").unlink()
    collect.main([str(runs), "--partial"])
    means = "means of seeds 0, 1 ± their standard deviation (better: of 0), with"
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
            "better/1 and {runs}/plain/0: test rows of other users",
        ),
        (
            lambda runs: spoil_ranks(runs, phase_q=[1, 1, 3, 1]),
            [],
            "better/1/ranks.parquet: not the ranks of the results (phase-q, ndcg@10)",
        ),
        (
            lambda runs: spoil_ranks(runs, popularity=[1, 1, 11, 11]),
            [],
            "not the ranks of the results (popularity, hr@10)",
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
            "the epoch was chosen by different metrics",
        ),
        (
            lambda runs: change(last(runs), "phases", value={"r": {"epochs": 1}}),
            [],
            "better/1/ranks.parquet: ",
        ),
        (lambda runs: last(runs, "ranks.parquet").unlink(), [], "ranks.parquet: "),
        (lambda runs: last(runs).write_text("{"), [], "the sweep makes it again"),
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
            "no run of the reference 'plain' is finished",
        ),
        (None, ["--reference", "worse"], "no 'worse' among plain, better"),
        (None, ["--points", "worse"], "--points: no 'worse' among plain, better"),
        (None, ["--metrics", "hr@11"], "no 'hr@11' among hr@10, ndcg@10, mrr@10"),
        (None, ["--metrics", "hr@10", "auc"], "--metrics: no 'auc'"),
        (None, ["--published", "no.csv"], "--published no.csv: No such file"),
        (None, ["--out", "setup.cfg"], "--out setup.cfg: File exists"),
    ],
)
def test_what_cannot_be_is_one_line(runs, capsys, spoil, arguments, message):
    if spoil:
        spoil(runs)
    with pytest.raises(SystemExit) as e:
        collect.main([str(runs), *arguments])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(runs=runs) in line
    assert not (runs / "table.md").exists()
