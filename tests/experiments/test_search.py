"""Searches that take seconds: sampling, pruning, resuming and mistakes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from experiments import search
from experiments.sweeping.pool import Job
from recjax.runtime.locks import MARK

SPACE = """

def search(trial):
    width = trial.suggest_categorical("width", [8, 16])
    rate = trial.suggest_float("rate", 1e-3, 1e-1, log=True)
    if trial.number == {idle}:
        rate = 1e-9
    return {{"item_tower.width": width, "train.phases[0].lr": rate}}
"""


@pytest.fixture
def space(sweep_config):
    """Writes the config; trial `idle` learns nothing."""

    def write(epochs=1, idle=-1):
        path = sweep_config(epochs)
        with open(path, "a") as file:
            file.write(SPACE.format(idle=idle))
        return path

    return write


def trials(out):
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{out}/study.db")
    return study.get_trials()


def test_the_best_on_validation_comes_first(space, tmp_path, capsys):
    out, asked = tmp_path / "out", ["--config", space(), "--out", str(tmp_path / "out")]
    search.main([*asked, "--trials", "1"])
    search.main([*asked, "--trials", "2"])  # one more
    said = capsys.readouterr().out
    assert said.count("trial 0: complete, ndcg@10") == 1
    found = trials(out)
    assert [x.state.name for x in found] == ["COMPLETE", "COMPLETE"]
    for trial in found:
        final = json.loads((out / str(trial.number) / "results.json").read_text())
        assert trial.value == final["valid"]["ndcg@10"]["value"]
        config = json.loads((out / str(trial.number) / "config.json").read_text())
        assert config["item_tower"]["width"] == trial.params["width"]
        assert config["train"]["phases"][0]["lr"] == trial.params["rate"]
    assert found[0].params != found[1].params
    text = (out / "search.md").read_text()
    best = max(found, key=lambda x: x.value)
    assert text.splitlines()[2].startswith(f"| {best.number} | {best.value:.4f} | 1 |")
    assert f"'--config.train.phases[0].lr={best.params['rate']}'" in text


def test_a_worse_trial_is_pruned(space, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search, "STARTUP_TRIALS", 1)
    monkeypatch.setattr(search, "WARMUP_VALIDATIONS", 2)
    asked = ["--config", space(30, idle=1), "--out", str(tmp_path), "--trials", "2"]
    search.main(asked)
    first, second = trials(tmp_path)
    assert first.state.name == "COMPLETE"
    assert second.state.name == "PRUNED"
    assert len(second.intermediate_values) < 30
    assert not (tmp_path / "1" / "results.json").exists()
    assert "| 1 (pruned) |" in capsys.readouterr().out


def test_an_invalid_config_starts_no_search(space, tmp_path, capsys):
    asked = ["--config", space(), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        search.main([*asked, "--", "--config.user_tower.num_heads=3"])
    error = capsys.readouterr().err
    assert re.search(r"^error: item_tower\.width", error)
    assert not (tmp_path / "out" / "study.db").exists()


def test_an_invalid_trial_counts_as_failed(space, tmp_path, capsys):
    path = Path(space())
    text = path.read_text().replace(
        'width": width', 'width": width if trial.number < 1 else 9'
    )
    path.write_text(text)
    with pytest.raises(SystemExit, match="1"):
        search.main(["--config", str(path), "--out", str(tmp_path), "--trials", "2"])
    assert [x.state.name for x in trials(tmp_path)] == ["COMPLETE", "FAIL"]
    assert "failed: trial 1: item_tower.width" in capsys.readouterr().err


def test_a_run_that_goes_wrong_ends_the_search(space, tmp_path, capsys):
    """A killed trial is repeated by the next search, and has failed if killed again.

    A trial that crashes ends the search, and the next search starts another trial.
    """
    folder, path = tmp_path / "out", Path(space())
    asked = ["--config", str(path), "--out", str(folder), "--trials"]
    search.main([*asked, "1"])
    config = path.read_text()
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    for how, code, states in (
        (kill, "2", ["COMPLETE", "RUNNING"]),
        (kill, "1", ["COMPLETE", "FAIL"]),
        ("os._exit(70)", "2", ["COMPLETE", "FAIL", "FAIL"]),
    ):
        at_import = "import os, signal, sys\n"
        at_import += f"if any('--workdir' in x for x in sys.argv):\n    {how}\n"
        path.write_text(at_import + config)
        with pytest.raises(SystemExit, match=code):
            search.main([*asked, str(len(states))])
        said = capsys.readouterr().err
        assert f": trial {len(states) - 1}: exit code " in said
        assert ("repeats it" in said) == (states[-1] == "RUNNING")
        assert [x.state.name for x in trials(folder)] == states
        assert "| 0 | " in (folder / "search.md").read_text()
    path.write_text(config)
    with pytest.raises(SystemExit, match="1"):
        search.main([*asked, "4"])
    assert [x.state.name for x in trials(folder)] == [*states, "COMPLETE"]


def test_two_failed_runs_in_a_row_end_the_search(space, tmp_path, capsys):
    """They fail on missing devices, which no check of a config finds."""
    path = Path(space())
    asked = ["--config", str(path), "--out", str(tmp_path / "out"), "--trials"]
    search.main([*asked, "1"])
    path.write_text(
        path.read_text().replace('"item_tower', '"mesh.data": 77, "item_tower')
    )
    with pytest.raises(SystemExit, match="2"):
        search.main([*asked, "5"])
    states = [x.state.name for x in trials(tmp_path / "out")]
    assert states == ["COMPLETE", "FAIL", "FAIL"]
    assert "needs 77 devices" in capsys.readouterr().err


def test_refused_trials_do_not_count_as_failed_runs(space, tmp_path, capsys):
    """A refused trial after a failed run does not end the search; between two it is
    ignored."""
    path = Path(space())
    text = path.read_text().replace(
        '"item_tower.width": width',
        '"item_tower.width": 9 if trial.number in (1, 3) else width, '
        '"mesh.data": 77 if trial.number in (2, 4) else 1',
    )
    path.write_text(text)
    asked = ["--config", str(path), "--out", str(tmp_path / "out"), "--trials", "6"]
    with pytest.raises(SystemExit, match="2"):
        search.main(asked)
    states = [x.state.name for x in trials(tmp_path / "out")]
    assert states == ["COMPLETE", *["FAIL"] * 4]
    assert "error: trial 4: exit code " in capsys.readouterr().err


def test_the_running_trial_is_shown(space, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    search.main(["--config", space(), "--out", str(tmp_path), "--trials", "1"])
    assert re.search(r"0/1 trials, trial 0 for \d+ s", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ('"item_tower.widht"', "trial 1: config of .*no key 'widht'"),
        (
            '"data.min_rating": 2.0, "item_tower.width"',
            "trial 1: data.min_rating: a search cannot",
        ),
    ],
)
def test_an_error_of_all_trials_ends_the_search(
    space, tmp_path, capsys, changed, message
):
    path, out = Path(space()), tmp_path / "out"
    asked = ["--config", str(path), "--out", str(out), "--trials"]
    search.main([*asked, "1"])
    path.write_text(path.read_text().replace('"item_tower.width": w', f"{changed}: w"))
    with pytest.raises(SystemExit, match="2"):
        search.main([*asked, "5"])
    assert re.search(message, capsys.readouterr().err)
    assert [x.state.name for x in trials(out)] == ["COMPLETE", "FAIL"]


def test_other_data_end_the_search(space, atomic_dir, tmp_path, capsys):
    config, data = Path(space()), tmp_path / atomic_dir.name
    shutil.copytree(atomic_dir, data)
    config.write_text(config.read_text().replace(str(atomic_dir), str(data)))
    asked = ["--config", str(config), "--out", str(tmp_path / "out"), "--trials"]
    search.main([*asked, "1"])
    path = data / f"{data.name}.inter"
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, *rest, first]) + "\n")
    with pytest.raises(SystemExit, match="2"):
        search.main([*asked, "5"])
    assert (
        "trial 1: the data differ from those of earlier trials"
        in capsys.readouterr().err
    )


def test_seeds_sample_differently(space, tmp_path, monkeypatch):
    """Trial 1 of seed 0 does not sample what trial 0 of seed 1 does."""
    monkeypatch.setattr(search, "Job", stop_here)
    drawn = {}
    for seed in (0, 1):
        out = tmp_path / str(seed)
        for _ in range(2):
            with pytest.raises(SystemExit, match="2"):
                search.main(
                    ["--config", space(), "--out", str(out), "--seed", str(seed)]
                )
        drawn[seed] = [x.params["rate"] for x in trials(out)]
    assert len({*drawn[0], *drawn[1]}) == 4


def stop_here(name, command, log):
    """Replaces `Job`: fails after the trial has sampled its values."""
    return Job(name, [sys.executable, "-c", "raise SystemExit(3)"], log)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--config": "configs/quickstart.py"}, "has no function 'search'"),
        ({"--": "--config.user_tower.nme=1"}, "no key 'nme'; did you mean \"name\"?"),
        ({"--": "stray"}, "'stray' after --: only --config.KEY=... is allowed"),
        ({"--trials": "1", "--out": "damaged"}, "study.db: "),
    ],
)
def test_mistakes_are_one_line(space, tmp_path, capsys, changes, message):
    asked = {"--config": space(), "--out": str(tmp_path / "out"), **changes}
    if asked["--out"] == "damaged":
        asked["--out"] = str(tmp_path / "damaged")
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged" / MARK).touch()
        (tmp_path / "damaged" / "study.db").write_text("no database" * 100)
    with pytest.raises(SystemExit, match="2"):
        search.main([x for pair in asked.items() for x in pair])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_invalid_searches(space, tmp_path, capsys):
    asked = ["--config", space(), "--out", str(tmp_path / "out"), "--trials"]
    with pytest.raises(SystemExit, match="2"):
        search.main([*asked, "-1"])
    assert "--trials: -1 has to be at least 0" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MARK).touch()
    (tmp_path / "out" / "sweep.json").touch()
    with pytest.raises(SystemExit, match="2"):
        search.main([*asked, "1"])
    assert "holds a sweep" in capsys.readouterr().err


def test_another_search_is_refused(space, tmp_path, capsys):
    asked = ["--config", space(), "--out", str(tmp_path), "--trials", "0"]
    search.main(asked)
    with pytest.raises(SystemExit, match="2"):
        search.main([*asked, "--seed", "1"])
    assert "was started with seed 0, not 1" in capsys.readouterr().err
    path = space()
    text = Path(path).read_text()
    Path(path).write_text(text.replace("lr=0.01", "lr=0.02"))  # another base config
    with pytest.raises(SystemExit, match="2"):
        search.main(asked)
    said = capsys.readouterr().err
    assert re.search(r"another base config \(train\.phases.*lr: 0.01 before", said)


@pytest.mark.faults
def test_a_killed_search_makes_the_same_trials(space, tmp_path):
    """A search that is killed twice is compared with an uninterrupted one."""
    path, command = space(40), [sys.executable, "-m", "experiments.search"]
    command += ["--config", path, "--trials", "3"]
    subprocess.run([*command, "--out", tmp_path / "alone"], check=True)
    for number in ("0", "1"):
        process = subprocess.Popen([*command, "--out", tmp_path / "killed"])
        log = tmp_path / "killed" / number / "metrics.jsonl"
        until = time.monotonic() + 600
        while not (log.exists() and log.read_text().count("\n") > 5):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--out", tmp_path / "killed"], check=True)
    one, other = trials(tmp_path / "alone"), trials(tmp_path / "killed")
    assert [x.params for x in one] == [x.params for x in other]
    assert [x.values for x in one] == [x.values for x in other]
    texts = [(tmp_path / x / "search.md").read_text() for x in ("alone", "killed")]
    assert texts[0] == texts[1]
