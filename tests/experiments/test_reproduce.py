"""The command that makes all tables: which programs it runs, and with what."""

import csv
import re
from pathlib import Path

import pytest

from experiments import reproduce
from experiments.sweeping.load import load_sweep
from recjax.common.errors import STOPPED


@pytest.mark.parametrize("table", reproduce.TABLES, ids=lambda table: table.folder)
def test_every_table_has_a_sweep_and_a_page(table):
    assert load_sweep(table.config or f"configs/ablations/{table.name}.py")
    page = (reproduce.HERE / table.name / "README.md").read_text()
    assert f"experiments.reproduce --only {table.name}" in page


@pytest.mark.parametrize("table", reproduce.TABLES, ids=lambda table: table.folder)
def test_every_table_is_there(table):
    """Each has the variants of its sweep, and the captions that `collect` writes."""
    folder = reproduce.HERE / table.folder
    with (folder / "table.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seeds"]]
    made = load_sweep(table.config or f"configs/ablations/{table.name}.py")
    assert [row["name"] for row in rows] == list(made)
    for row in rows:
        assert float(row["seeds"]) == len(reproduce.DEFAULT_SEEDS)
        assert bool(row["difference seeds"]) == (row is not rows[0])
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert re.search(r"Protocol [0-9a-f]{12}", text)
    assert (folder / "plot.png").exists()


def test_a_table_is_made(sweep_config, tmp_path, monkeypatch, capsys):
    """A sweep and a collection make it, with the published results of its folder."""
    path = Path(sweep_config())
    path.write_text(path.read_text().replace('    add("odd"', '    # add("odd"'))
    tables = [reproduce.Table("tiny", "a title", config=str(path))]
    monkeypatch.setattr(reproduce, "TABLES", tables)
    monkeypatch.setattr(reproduce, "HERE", tmp_path / "here")
    monkeypatch.setattr(reproduce.run_lib, "main", lambda arguments: None)
    folder = tmp_path / "here" / "tiny"
    folder.mkdir(parents=True)
    (folder / "published.csv").write_text("name,source,hr@10\nbest,paper,.5\n")
    asked = ["--out", str(tmp_path / "runs"), "--seeds", "0"]
    reproduce.main([*asked, "--dry_run", "--tables", str(tmp_path / "there")])
    assert "0 of 2 runs are finished, 2 can be run" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "there").exists()
    reproduce.main([*asked, "--tables", str(tmp_path / "there")])
    assert not (folder / "ml100k").exists()
    text = (tmp_path / "there" / "tiny" / "ml100k" / "table.md").read_text()
    assert "| best (published), paper | 0.5000 |" in text
    reproduce.main(asked)
    text = (folder / "ml100k" / "table.md").read_text()
    assert text.startswith("# MovieLens 100K: a title\n")
    assert "| best (published), paper | 0.5000 |" in text
    assert "| wide |" in text
    assert (folder / "ml100k" / "plot.png").exists()
    (tmp_path / "runs" / "tiny" / "ml100k" / "sweep.json").write_text('{"config": ""')
    with pytest.raises(SystemExit, match="1"):
        reproduce.main(asked)


def test_a_table_of_another_data_set(tmp_path, monkeypatch):
    """It has its own config argument, data source and published rows."""
    asked = []
    monkeypatch.setattr(reproduce.sweep, "main", asked.append)
    monkeypatch.setattr(reproduce.collect, "main", asked.append)
    out, data = tmp_path / "out", tmp_path / "data"
    for name in ("amazon-industrial", "amazon-beauty"):
        (data / name).mkdir(parents=True)
    arguments = ["--only", "pooling", "headlines", f"--out={out}", "--seeds", "5"]
    reproduce.main(arguments)
    assert len(asked) == 4  # MovieLens only
    asked.clear()
    reproduce.main([*arguments, f"--data={data}", "--jobs=2"])
    _, _, swept, _, _, _, headline, collected, _, _ = asked
    folder = out / "pooling" / "amazon_industrial"
    seeds = ["--seeds", "5", f"--reuse={out}", "--jobs=2"]
    source = ["--", f"--config.data.source={data.resolve()}/amazon-industrial"]
    config = "--config=configs/ablations/pooling.py"
    of = "--data=amazon_industrial"
    assert swept == [config, f"--out={folder}", *seeds, of, *source]
    # The config of a headline knows one data set only.
    folder = out / "headlines" / "amazon_industrial"
    config = "--config=configs/amazon_industrial.py"
    assert headline == [config, f"--out={folder}", *seeds, *source]
    own = reproduce.HERE / "headlines" / "amazon_industrial"
    assert collected[:2] == [str(folder), f"--out={own}"]
    assert f"--published={own / 'published.csv'}" in collected


@pytest.mark.parametrize(("code", "tables"), [(1, 2), (STOPPED, 1)])
def test_a_failure_does_not_stop_the_next_table_but_a_signal_does(
    code, tables, tmp_path, monkeypatch
):
    asked = []

    def fail(arguments):
        asked.append(arguments)
        raise SystemExit(code)

    monkeypatch.setattr(reproduce.sweep, "main", fail)
    with pytest.raises(SystemExit) as e:
        reproduce.main(["--only", "pooling", "sources", "--out", str(tmp_path)])
    assert (e.value.code, len(asked)) == (code, tables)


@pytest.mark.parametrize("name", ["protocol", "protocol/ml100k"])
def test_the_protocols_are_the_last_table(name, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reproduce.run_lib, "main", asked.append)
    reproduce.main(["--only", name, "--out", str(tmp_path), "--seeds", "5"])
    (arguments,) = asked
    there = f"--out={reproduce.HERE / 'protocol' / 'ml100k'}"
    assert arguments[:2] == [str(tmp_path / "protocol"), there]
    assert arguments[2:] == ["--jobs=1", "--seeds", "5", f"--reuse={tmp_path}"]


def test_missing_data_are_reported_first(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        reproduce.main([f"--data={tmp_path}", "--out", str(tmp_path / "out")])
    assert "has no directory amazon-industrial" in capsys.readouterr().err


def test_one_data_set_of_a_table(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(reproduce.sweep, "main", asked.append)
    monkeypatch.setattr(reproduce.collect, "main", lambda arguments: None)
    (tmp_path / "amazon-industrial").mkdir()
    only = ["--out", str(tmp_path / "out"), "--only", "pooling/amazon_industrial"]
    reproduce.main([*only, f"--data={tmp_path}"])
    ((_, out, *_),) = asked
    assert out == f"--out={tmp_path / 'out' / 'pooling' / 'amazon_industrial'}"
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(only)
    assert "pooling/amazon_industrial: needs the Amazon data" in capsys.readouterr().err
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "no 'nothing'; choose from freezing/ml100k, pooling"),
        (["--seeds", "0", "0"], "--seeds: [0, 0] have to be different"),
        (["--jobs", "0"], "--jobs: 0 is not between 1 and"),
        (["--tables", "setup.cfg"], "setup.cfg: File exists"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--out", str(tmp_path / "out"), *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
