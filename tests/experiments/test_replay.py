"""Replays of tables of tiny runs: identical, close, different, and recorded."""

import csv
import io
import json
import re

import pytest

from experiments import replay, reproduce
from experiments.replay import to_csv
from experiments.reproduce import Table
from experiments.sweeping.load import RESULT_KEYS
from recjax.runtime.locks import MARK
from tests.experiments.conftest import CONFIG

SEED = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory, atomic_dir):
    """Two tables of the same two runs; one counts only some examples."""
    folder = tmp_path_factory.mktemp("replay")
    config = folder / "tiny.py"
    text = CONFIG.format(data=str(atomic_dir), epochs=1)
    config.write_text(text.replace('    add("odd"', '    # add("odd"'))
    tables = [
        Table("tiny", "all rows", config=str(config)),
        Table("some", "some rows", config=str(config), options=("--items=warm",)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "TABLES", tables)
        patch.setattr(reproduce, "DEFAULT_SEEDS", [SEED])
        out = ["--out", str(folder / "runs"), "--tables", str(folder / "tables")]
        reproduce.main(["--only", "tiny", "some", "--seeds", str(SEED), *out])
    return folder, tables


@pytest.fixture
def tables(made, tmp_path, monkeypatch):
    """A copy of the tables; the runs of the replay are kept from test to test."""
    folder, known = made
    monkeypatch.setattr(reproduce, "TABLES", known)
    monkeypatch.setattr(reproduce, "DEFAULT_SEEDS", [SEED])
    for table in known:
        there = tmp_path / table.folder
        there.mkdir(parents=True)
        text = (folder / "tables" / table.folder / "table.csv").read_bytes()
        (there / "table.csv").write_bytes(text)
    return tmp_path


@pytest.fixture
def call(made, tables, capsys):
    """Replays; returns the exit code and the verdicts by table."""

    def run(*arguments):
        code = 0
        try:
            out = f"--out={made[0] / 'again'}"
            replay.main([out, f"--tables={tables}", *arguments])
        except SystemExit as e:
            code = e.code
        said = capsys.readouterr()
        found = re.findall(
            r"^\| (\w+)/ml100k \|.*\| ([^|]*) \| \d+ \|$", said.out, re.M
        )
        return code, dict(found), said

    return run


def read_table(path):
    return list(csv.reader(io.StringIO(path.read_text(), newline="")))


def drop_digests(path):
    """Removes the digests, which older tables do not have."""
    rows = read_table(path)
    place = rows[0].index("ranks")
    path.write_text(to_csv([row[:place] + row[place + 1 :] for row in rows]))


def edit(path, column, change):
    rows = read_table(path)
    place = rows[0].index(column)
    for row in rows[1:]:
        row[place] = change(row[place]) if row[place] else ""
    path.write_text(to_csv(rows))


def shift(amount):
    """Changes the metric of a seed."""
    return lambda value: f"{float(value) + amount:.6f}"


def corrupt(value):
    """Changes the digest of a seed."""
    return f"{SEED}:{'0' * 16}"


def test_the_same_code_gives_the_same_ranks(call, made, tables):
    code, found, said = call()
    assert (code, found) == (0, dict.fromkeys(["tiny", "some"], "ranks identical"))
    path = tables / "tiny/ml100k/table.csv"
    with path.open() as file:
        variants = [row for row in csv.DictReader(file) if row["seeds"]]
    cheapest = min(variants, key=lambda row: float(row["all s"]))["name"]
    value = next(row["hr@10 seeds"] for row in variants if row["name"] == cheapest)
    line = f"| tiny/ml100k | {cheapest} | {SEED} | hr@10 {value} / {value}, ndcg@10 "
    assert line in said.out
    runs = made[0] / "again" / "tiny" / "ml100k"
    assert [str(x.relative_to(runs)) for x in runs.glob("*/*/results.json")] == [
        f"{cheapest}/{SEED}/results.json"
    ]
    code, found, said = call("--only", "tiny")
    assert (code, found) == (0, {"tiny": "ranks identical"})
    assert "started" not in said.out  # it was finished


def test_an_identical_run_of_two_tables_is_made_once(call, made, tables):
    for table in ("tiny", "some"):  # the same variant is the cheapest of both
        rows = read_table(tables / table / "ml100k/table.csv")
        place = rows[0].index("all s")
        for row in rows[1:]:
            row[place] = row[place] and str(len(row[0]))  # wide before narrow
        (tables / table / "ml100k/table.csv").write_text(to_csv(rows))
    code, _, _ = call()
    assert code == 0
    assert (made[0] / "again" / "some" / "ml100k" / "wide" / str(SEED)).is_symlink()


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize(
    ("amount", "code", "verdict"),
    [
        (0.0, 0, "metrics identical to 6 decimals"),
        (0.001, 0, "within 0.002 (largest difference 0.001000)"),
        (-0.002, 0, "within 0.002 (largest difference 0.002000)"),
        (0.01, 1, "differs (largest difference 0.010000)"),
    ],
)
def test_other_ranks_hold_by_their_metrics(call, tables, digest, amount, code, verdict):
    """The digest may differ, as on another processor, or be missing."""
    for table in ("tiny", "some"):
        path = tables / table / "ml100k/table.csv"
        if digest:
            edit(path, "ranks", corrupt)
        else:
            drop_digests(path)
        edit(path, "ndcg@10 seeds", shift(amount))
    before = (tables / "tiny/ml100k/table.csv").read_bytes()
    assert call()[:2] == (code, {"tiny": verdict, "some": verdict})
    call("--only", "tiny", *(["--record"] if digest or amount else []))
    assert (tables / "tiny/ml100k/table.csv").read_bytes() == before


def test_identical_ranks_hold_alone(call, tables):
    """Edited metrics do not matter: they are computed from the ranks."""
    edit(tables / "tiny/ml100k/table.csv", "hr@10 seeds", shift(0.01))
    assert call("--only", "tiny")[:2] == (0, {"tiny": "ranks identical"})


@pytest.mark.parametrize("column", [True, False])
def test_a_digest_is_recorded(call, tables, column):
    """Only its cell changes, whether the table has the column or not."""
    path = tables / "tiny/ml100k/table.csv"
    want = read_table(path)
    place, cost = want[0].index("ranks"), want[0].index("all s")
    variants = [row for row in want[1:] if row[cost]]
    max(variants, key=lambda row: float(row[cost]))[place] = ""  # is not replayed
    if column:
        edit(path, "ranks", lambda value: "")
    else:
        drop_digests(path)
    identical = (0, {"tiny": "metrics identical to 6 decimals"})
    assert call("--only", "tiny", "--record")[:2] == identical
    assert path.read_text() == to_csv(want)
    again = call("--only", "tiny", "--record")
    assert again[:2] == (0, {"tiny": "ranks identical"})
    assert path.read_text() == to_csv(want)


def test_a_variant_without_a_hit_is_not_chosen(tables):
    """Its metrics would be zero for other ranks too."""
    path = tables / "tiny/ml100k/table.csv"
    rows = read_table(path)
    head = rows[0]
    for row in rows[1:]:
        if row[0] == "wide":
            row[head.index("all s")] = "0.5"
            row[head.index("hr@10 seeds")] = row[head.index("ndcg@10 seeds")] = "0.0"
    path.write_text(to_csv(rows))
    found = replay.read_committed(reproduce.TABLES[0], tables)
    assert found.variant == "narrow"


def test_a_failed_run_does_not_hold(call, monkeypatch):
    def fail(arguments):
        raise SystemExit(1)

    monkeypatch.setattr(replay.sweep, "main", fail)
    code, found, said = call("--only", "some")
    assert (code, found) == (1, {"some": "differs (the run failed)"})
    assert "/ none, ndcg@10" in said.out


def test_runs_of_other_code_are_refused(call, tables, tmp_path):
    """They would count as finished."""
    run = tmp_path / "old" / "tiny" / "narrow" / str(SEED)
    run.mkdir(parents=True)
    (tmp_path / "old" / MARK).touch()
    old = {**dict.fromkeys(RESULT_KEYS), "code": ""}
    (run / "results.json").write_text(json.dumps(old))
    code, _, said = call(f"--out={tmp_path / 'old'}")
    assert code == 2
    assert f"{run}: was made by a different version of the code" in said.err


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda path: path.unlink(), [], "table.csv: No such file"),
        (lambda path: path.write_text(""), [], "table.csv: damaged"),
        (lambda path: path.write_text("name\na\n"), [], "table.csv: damaged"),
        (lambda path: edit(path, "ranks", lambda x: "x"), [], "table.csv: damaged"),
        (None, ["--only", "nothing"], "no 'nothing'; choose from tiny/ml100k, some"),
        (None, ["--only", "protocol"], "--only: these tables have no runs"),
        (None, ["--jobs", "0"], "--jobs: 0 is not between 1 and"),
    ],
)
def test_mistakes_are_one_line(call, tables, spoil, arguments, message):
    if spoil:
        spoil(tables / "tiny/ml100k/table.csv")
    code, _, said = call(*arguments)
    (line,) = said.err.splitlines()
    assert code == 2
    assert message in line


def test_a_table_edited_by_hand_is_not_rewritten(call, tables):
    path = tables / "tiny/ml100k/table.csv"
    drop_digests(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = path.read_bytes()
    code, _, said = call("--only", "tiny", "--record")
    assert code == 2
    assert "was not written by experiments.collect" in said.err
    assert path.read_bytes() == before
