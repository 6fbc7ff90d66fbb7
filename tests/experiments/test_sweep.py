"""Sweeps: each run is made once, interruptions are resumed, mistakes are reported."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from tensorboard.backend.event_processing import event_multiplexer
from tensorboard.plugins.hparams import metadata

from experiments import collect, sweep
from experiments.sweeping.plan import Plan
from recjax.common.errors import STOPPED
from recjax.runtime.locks import MARK, directory_lock
from tests.experiments.conftest import results

DATA_FILE = """
def describe(config):
    config.data.source = {data!r}
    config.text.title = "{{title}}"
    config.item_tower.width = 8
    config.eval.bootstrap_samples = 20
"""
TWO = ("--variants", "narrow", "wide")


def test_runs_each_variant_with_each_seed_once(
    sweep_config, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        sys.stdout, "isatty", lambda: True
    )  # a terminal shows the running jobs
    asked = ["--config", sweep_config(), "--out", str(tmp_path / "out"), *TWO]
    sweep.main([*asked, "--seeds", "4"])
    first = results(tmp_path / "out")
    assert list(first) == ["narrow/4/results.json", "wide/4/results.json"]
    assert {x["seed"] for x in first.values()} == {4}
    said = capsys.readouterr().out
    assert re.search(r"0/2 runs, running narrow 4 for \d+ s", said)
    assert re.search(r"1/2 runs, about \d+ s left, running wide 4 for \d+ s", said)
    assert "narrow 4: ndcg@10 0." in said
    sweep.main([*asked, "--seeds", "3"])  # adds a seed
    said = capsys.readouterr().out
    assert "wide 3: started" in said
    assert "wide 4: started" not in said
    assert len(results(tmp_path / "out")) == 4
    plan = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert plan["seeds"] == [3, 4]
    assert plan["variants"] == {"narrow": {}, "wide": {"item_tower.width": 16}}
    wide = json.loads((tmp_path / "out/wide/3/config.json").read_text())
    assert wide["item_tower"]["width"] == 16
    # TensorBoard's hparams tab: the keys that differ, and the runs with their values.
    board = event_multiplexer.EventMultiplexer()
    board.AddRunsFromDirectory(str(tmp_path / "out"))
    board.Reload()
    runs = board.PluginRunToTagToContent("hparams")
    assert [x for x in runs if metadata.EXPERIMENT_TAG in runs[x]] == ["."]
    columns = metadata.parse_experiment_plugin_data(runs["."][metadata.EXPERIMENT_TAG])
    names = sorted(x.name for x in columns.hparam_infos)
    assert names == ["item_tower.width", "run", "seed"]
    assert "test/ndcg@10" in [x.name.tag for x in columns.metric_infos]
    started = metadata.parse_session_start_info_plugin_data(
        runs["wide/3"][metadata.SESSION_START_INFO_TAG]
    )
    assert started.hparams["item_tower.width"].number_value == 16
    assert started.hparams["seed"].number_value == 3
    assert started.hparams["run"].string_value == "wide/3"
    for damaged in ('{"seconds": ', "", "{}", "[]"):
        (tmp_path / "out/wide/3/results.json").write_text(damaged)
        with pytest.raises(SystemExit, match="2"):
            sweep.main(asked)
        (line,) = capsys.readouterr().err.splitlines()
        assert "wide/3/results.json: " in line
        assert line.endswith(
            "delete the run directory, and the next sweep runs it again"
        )


def test_a_dry_run_lists_the_missing_runs(sweep_config, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["--config", sweep_config(), "--out", str(out), "--dry_run"]
    sweep.main([*asked, "--seeds", "0", "1"])
    said = capsys.readouterr().out
    assert "note: odd cannot run: " in said
    assert "narrow: to be run with seeds 0, 1\n" in said
    assert "odd: to be run" not in said
    assert "dry run: 0 of 6 runs are finished, 4 can be run" in said
    assert not out.exists()
    sweep.main([*asked[:-1], "--variants", "wide", "--seeds", "0"])
    before = sorted(out.rglob("*"))
    with directory_lock(out, "sweep", "--out"):  # a dry run needs no lock
        sweep.main([*asked, *TWO, "--seeds", "1"])
    said = capsys.readouterr().out
    assert "wide: to be run with seeds 1\n" in said
    assert "dry run: 1 of 4 runs are finished, 3 can be run" in said
    assert sorted(out.rglob("*")) == before
    other = ["--config", asked[1], "--out", str(tmp_path / "other"), "--dry_run", *TWO]
    sweep.main([*other, "--seeds", "0", "--reuse", str(out)])
    said = capsys.readouterr().out
    assert f"wide/0: the same as {out.resolve()}/wide/0" in said
    assert "narrow: to be run with seeds 0\n" in said
    assert "dry run: 1 of 2 runs are finished, 1 can be run" in said
    assert not (tmp_path / "other").exists()
    with pytest.raises(SystemExit, match="2"):
        sweep.main([*asked, "--variants", "nowhere"])
    assert "--variants: no 'nowhere'" in capsys.readouterr().err


def test_runs_of_other_code_are_reported(sweep_config, tmp_path, capsys):
    asked = ["--config", sweep_config(), "--out", str(tmp_path), "--variants", "narrow"]
    sweep.main([*asked, "--seeds", "0"])
    sweep.main([*asked, "--seeds", "0"])
    assert "a different version of the code" not in capsys.readouterr().out
    path = tmp_path / "narrow" / "0" / "results.json"
    final = json.loads(path.read_text())
    assert final["versions"]["jax"]
    path.write_text(json.dumps({**final, "code": "0" * 12}))
    sweep.main([*asked, "--seeds", "0"])
    said = capsys.readouterr().out
    assert (
        "1 finished runs were made by a different version of the code, for example "
        f"{path.parent}"
    ) in said


def test_seconds_left():
    assert sweep.seconds_left([], [5.0, -3.0], 2) == 5.0
    assert sweep.seconds_left([10.0], [5.0, 7.0], 2) == 15.0  # the slot free first
    assert sweep.seconds_left([10.0], [30.0], 2) == 30.0  # in parallel
    assert sweep.seconds_left([10.0, 10.0, 10.0], [], 2) == 20.0


def test_the_longest_runs_of_the_last_seed_come_first(tmp_path):
    started = []
    for elapsed in ({"a": [1.0], "b": [5.0]}, {"b": [5.0], "c": [9.0]}):
        plan = Plan("c.py", "", {"a": {}, "b": {}, "c": {}}, [0, 1], [], tmp_path)
        runner = sweep._SweepRunner(plan, 1)
        runner.elapsed = elapsed
        runner.pool = SimpleNamespace(free=[0], start=started.append)
        runner.start()  # two seeds are left
        runner.waiting = [("a", 1), ("b", 1), ("c", 1)]
        runner.start()
    assert [job.name for job in started[:6]] == [
        "a 0",
        "b 0",
        "c 0",
        "a 1",
        "b 1",
        "c 1",
    ]
    assert [job.name for job in started[6:9]] == ["b 1", "c 1", "a 1"]  # c: the mean
    assert [job.name for job in started[-3:]] == ["c 1", "a 1", "b 1"]


def test_a_directory_without_write_permission(sweep_config, tmp_path, capsys):
    (tmp_path / "out" / MARK).mkdir(parents=True)
    with pytest.raises(SystemExit) as e:
        sweep.main(["--config", sweep_config(), "--out", str(tmp_path / "out")])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {tmp_path}/out: is not empty (.recjax) and")


def test_a_failed_run_does_not_stop_the_others(
    sweep_config, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    asked = ["--config", sweep_config(), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as e:
        sweep.main([*asked, "--variants", "odd", "narrow", "--seeds", "0", "1"])
    assert e.value.code == 1
    said = capsys.readouterr()
    assert "note: odd cannot run: item_tower.width" in said.out
    assert "odd 0: started" not in said.out
    assert re.search(r"2/4 runs, 2 failed, running narrow 0 for \d+ s", said.out)
    assert re.search(
        r"4/4 runs, 2 failed, about 0 s left\W*$", said.out.split("all ")[0]
    )
    assert "failed: odd 0: item_tower.width" in said.err
    made = ["narrow/0/results.json", "narrow/1/results.json"]  # before it and after
    assert list(results(tmp_path / "out")) == made


def test_unreadable_data_are_reported_first(sweep_config, tmp_path, capsys):
    """Unreadable texts too, and also by a dry run."""
    path = Path(sweep_config())
    elsewhere = 'add("elsewhere", {"data.source": "/nowhere"})'
    texts = '{"item_tower.sources": ("text",), "text.template": "{nam}"}'
    path.write_text(
        path.read_text() + f'    {elsewhere}\n    add("misspelt", {texts})\n'
    )
    asked = ["--config", str(path), "--out", str(tmp_path / "out"), "--dry_run"]
    asked += ["--seeds", "0", "--variants"]
    sweep.main([*asked, "narrow", "elsewhere", "misspelt"])
    said = capsys.readouterr().out
    assert "note: elsewhere cannot run: " in said
    assert "note: misspelt cannot run: text.template: '{nam}': no column" in said
    assert "1 can be run" in said
    for more in ([], ["--", "--config.text.template={nam}"]):
        with pytest.raises(SystemExit, match="2"):
            sweep.main([*asked, "elsewhere", *more])
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: elsewhere: ")
        assert "/nowhere" in line
    with pytest.raises(SystemExit, match="2"):
        sweep.main([*asked, *TWO[1:], "--", "--config.data.source=/nowhere"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: narrow, wide: ")
    sweep.main([*asked, "narrow", "--", "--config.text.template={nam}"])  # of ids alone


def test_a_directory_of_a_search_is_refused(sweep_config, tmp_path, capsys):
    (tmp_path / MARK).touch()
    (tmp_path / "study.db").touch()
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["--config", sweep_config(), "--out", str(tmp_path)])
    assert "holds a search" in capsys.readouterr().err


def test_variants_with_the_same_config_are_reported(sweep_config, tmp_path, capsys):
    asked = ["--config", sweep_config(), "--out", str(tmp_path / "out"), "--dry_run"]
    sweep.main([*asked, *TWO])
    assert "the same config" not in capsys.readouterr().out
    sweep.main([*asked, *TWO, "--", "--config.item_tower.width=8"])
    said = capsys.readouterr().out
    assert (
        "note: wide and narrow have the same config, so their runs are the same" in said
    )


def test_changed_data_are_reported(sweep_config, atomic_dir, tmp_path, capsys):
    config, data = Path(sweep_config()), tmp_path / atomic_dir.name
    shutil.copytree(atomic_dir, data)
    config.write_text(config.read_text().replace(str(atomic_dir), str(data)))
    asked = ["--config", str(config), "--out", str(tmp_path / "out")]
    asked += ["--seeds", "0", "--variants"]
    sweep.main([*asked, "narrow"])
    assert "its data differ" not in capsys.readouterr().out
    path = data / f"{data.name}.inter"
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, *rest, first]) + "\n")
    sweep.main([*asked, "wide"])
    said = capsys.readouterr().out
    assert "note: wide 0: its data differ from those of earlier runs" in said


def test_variants_with_other_protocols_are_reported(sweep_config, tmp_path, capsys):
    path = Path(sweep_config())
    longer = 'add("longer", {"data.history_length": 5, "eval.mask_seen": False})'
    same = 'add("same", {"data.reverse": 0.5, "data.split_seed": 3})'
    path.write_text(path.read_text() + f"    {longer}\n    {same}\n")
    variants = ["--variants", "narrow", "longer", "same", "--seeds", "0"]
    sweep.main(["--config", str(path), "--out", str(tmp_path / "out"), *variants])
    said = capsys.readouterr().out
    differ = "data.history_length, eval.mask_seen"
    assert f"note: longer and narrow differ in {differ}: their results" in said
    assert said.count("differ in") == 1
    with pytest.raises(SystemExit, match="2"):
        collect.main([str(tmp_path / "out")])
    assert "cannot be compared" in capsys.readouterr().err


def test_variants_that_the_config_no_longer_has_are_skipped(
    sweep_config, tmp_path, capsys
):
    path, out = Path(sweep_config()), tmp_path / "out"
    asked = ["--config", str(path), "--out", str(out), "--seeds", "0", "--variants"]
    sweep.main([*asked, "narrow", "wide"])
    path.write_text(path.read_text().replace('add("wide"', 'add("wider"'))
    sweep.main([*asked, "narrow"])
    said = capsys.readouterr().out
    assert f"note: {path} no longer has wide; skipped" in said
    assert list(json.loads((out / "sweep.json").read_text())["variants"]) == ["narrow"]


@pytest.mark.parametrize("where", ["raise SystemExit(0)", "def sweep(add): exit()"])
def test_a_config_that_exits(sweep_config, tmp_path, capsys, where):
    path = Path(sweep_config())
    path.write_text(path.read_text() + f"\n{where}\n")
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["--config", str(path), "--out", str(tmp_path / "out")])
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line


def test_files_that_a_config_misses_are_not_the_config(sweep_config, tmp_path, capsys):
    path = Path(sweep_config())
    path.write_text(path.read_text() + "\nopen('nowhere.csv')\n")
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["--config", str(path), "--out", str(tmp_path / "out")])
    (line,) = capsys.readouterr().err.splitlines()
    assert "No such file or directory: 'nowhere.csv'" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--config": "no.py"}, "--config: no.py does not exist"),
        ({"--config": "configs/quickstart.py"}, "has no function 'sweep'"),
        ({"--variants": "round"}, "--variants: no 'round' in .*; choose from narrow"),
        ({"--variants": "odd"}, "^error: odd: item_tower.width"),
        ({"--jobs": "1000"}, "--jobs: 1000 is not between 1 and"),
        ({"--seeds": "-1"}, "--seeds: .-1. have to be different and at least 0"),
        ({"--": "--config.user_tower.nme=1"}, "no key 'nme'; did you mean \"name\"?"),
        ({"--": "--config.seed=4"}, "'--config.seed=4' after --: only"),
        ({"--": "stray"}, "'stray' after --: only --config.KEY=... is allowed"),
    ],
)
def test_mistakes_are_one_line(sweep_config, tmp_path, capsys, changes, message):
    asked = {"--config": sweep_config(), "--out": str(tmp_path / "out"), **changes}
    with pytest.raises(SystemExit) as e:
        sweep.main([x for pair in asked.items() for x in pair])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not list((tmp_path / "out").glob("*/0"))


def test_another_sweep_is_refused(sweep_config, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / MARK).touch()
    asked = ["--config", sweep_config(), "--out", str(out), "--variants", "narrow"]
    other = {"config": "b.py", "data": "", "arguments": [], "variants": {}, "seeds": []}
    (out / "sweep.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit):
        sweep.main(asked)
    assert "was started with config 'b.py', not" in capsys.readouterr().err
    (out / "sweep.json").unlink()
    run = out / "narrow" / "1"
    run.mkdir(parents=True)
    (run / MARK).touch()
    (run / "config.json").write_text('{"seed": 7}')
    (run / "results.json").write_text("{}")
    with pytest.raises(SystemExit):
        sweep.main(asked)
    said = capsys.readouterr().err
    assert f"error: {run}: holds a run of another config" in said
    assert "; delete that run, or choose another --out" in said
    (run / "config.json").unlink()
    (run / "results.json").unlink()
    with directory_lock(out, "sweep", "--out"), pytest.raises(SystemExit):
        sweep.main(asked)
    assert f"--out {out}: process " in capsys.readouterr().err


def test_a_data_set_in_a_file(atomic_dir, tmp_path, capsys):
    """Its runs are made once, are collected, and belong to what the file sets."""
    file, out = tmp_path / "shop.py", tmp_path / "out"
    file.write_text(DATA_FILE.format(data=str(atomic_dir)))
    asked = ["--config=configs/ablations/sources.py", f"--data={file}", f"--out={out}"]
    asked += ["--variants", "id", "--seeds", "0", "--"]
    asked.append("--config.train.phases[0].epochs=1")
    for _ in range(2):
        sweep.main(asked)
    assert capsys.readouterr().out.count("id 0: started") == 1
    run = json.loads((out / "id/0/config.json").read_text())
    assert run["data"]["source"] == str(atomic_dir)
    collect.main([str(out)])
    assert f"--data={file} " in capsys.readouterr().out
    file.write_text(file.read_text().replace("= 8", "= 16"))
    with pytest.raises(SystemExit, match="2"):
        sweep.main(asked)
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds a run of another config (item_tower.width: 8 before, 16" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "error: --data: .*/shop.py does not exist"),
        ("x = 1", "error: --data: .*/shop.py has no function 'describe'"),
        ("import nowhere", "error: --data: .*/shop.py: No module named 'nowhere'"),
        (
            "def describe(config):\n    config.data.sorce = 'x'",
            "shop.py, line 2: no key 'sorce'; did you mean \"source\"",
        ),
        ("def describe(config):\n    exit(4)", "shop.py, line 2: 4"),
        ("def describe(config):\n    1 / 0", "shop.py, line 2: .*division by zero"),
        (
            "TUNED = {'batchsize': 1}\ndef describe(config): pass",
            "shop.py: TUNED: no key 'batchsize'; did you mean \"batch_size\"",
        ),
    ],
)
def test_mistakes_in_a_file_with_a_data_set(tmp_path, capsys, text, message):
    file = tmp_path / "shop.py"
    if text is not None:
        file.write_text(text)
    asked = ["--config=configs/ablations/sources.py", f"--data={file}"]
    with pytest.raises(SystemExit) as e:
        sweep.main([*asked, f"--out={tmp_path / 'out'}", "--dry_run"])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def start(config, out):
    """Starts a sweep in its own process."""
    command = [sys.executable, "-m", "experiments.sweep", "--config", config]
    command += ["--out", str(out), *TWO, "--seeds", "0", "1"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.faults
def test_a_sweep_killed_twice_gives_the_same(sweep_config, tmp_path):
    config, rng = sweep_config(epochs=60), random.Random(0)
    alone = start(config, tmp_path / "alone")
    began = time.monotonic()
    said, _ = alone.communicate()
    assert alone.returncode == 0, said
    took = time.monotonic() - began
    for _ in range(2):
        process = start(config, tmp_path / "killed")
        time.sleep(rng.uniform(0.2, 0.5) * took)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    whole = results(tmp_path / "alone")
    assert len(results(tmp_path / "killed")) < len(whole) == 4
    last = start(config, tmp_path / "killed")
    said, _ = last.communicate()
    assert last.returncode == 0, said
    assert results(tmp_path / "killed") == whole
    tables = []
    for name in ("alone", "killed"):
        collect.main([str(tmp_path / name)])
        table = pl.read_csv(tmp_path / name / "table.csv")
        tables.append(table.drop("train s", "all s", "MiB"))
    assert tables[0].equals(tables[1])
    assert len(tables[0].filter(pl.col("name").is_in(["narrow", "wide"]))) == 2


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_runs_and_stops(sweep_config, tmp_path, number):
    process = start(sweep_config(epochs=400), tmp_path / "out")
    log = tmp_path / "out" / "logs" / "narrow-0.txt"
    while not (log.exists() and " steps, " in log.read_text()):
        time.sleep(0.1)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == STOPPED
    assert "stopped: the same command resumes" in said
    assert "stopped: the same command resumes" in log.read_text()


def test_names_of_older_versions(sweep_config, tmp_path, capsys):
    """The flag `--points`, and a directory with that key in its sweep.json."""
    asked = ["--config", sweep_config(), "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        sweep.main([*asked, "--points", "narrow"])
    assert "--points is now called --variants" in capsys.readouterr().err
    (tmp_path / MARK).touch()
    (tmp_path / "sweep.json").write_text('{"points": {}}')
    with pytest.raises(SystemExit, match="2"):
        sweep.main(asked)
    (line,) = capsys.readouterr().err.splitlines()
    assert "sweep.json: written by an older version" in line
