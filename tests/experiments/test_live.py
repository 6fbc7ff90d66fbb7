"""The replay of a stream through two services, on a tiny data set."""

import sys

import polars as pl
import pytest

from experiments.live import simulate
from experiments.live.replay_data import divide
from recjax.common.errors import UserError
from recjax.config.validate import check_config
from tests import synthetic

CONFIG = """
from pathlib import Path

from recjax.config import base
from tests.conftest import shrink


def get_config():
    config = shrink(base.get_config(), Path({data!r})).unlock()
    config.item_tower.sources = ("id", "text")
    phase = base.phase("towers", epochs=40, lr=1e-2, keep="last", patience=0)
    config.train.phases = (phase,)
    return config.lock()
"""


def events_of(folder):
    path = folder / f"{folder.name}.inter"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return [(user, item, float(time)) for user, item, _, time in rows]


def test_the_newest_events_are_the_stream(config, atomic_dir, tmp_path):
    events = sorted(events_of(atomic_dir), key=lambda event: event[2])
    stream = divide(config, tmp_path, 0.25)
    start = len(events) - round(0.25 * len(events))
    # At equal times the reader orders by user.
    times = [event.time for event in stream.events]
    assert times == [event[2] for event in events[start:]]
    past = pl.read_parquet(tmp_path / "past.inter.parquet")
    found = [*past.iter_rows(), *stream.events]
    assert sorted(map(tuple, found)) == sorted(events)
    known = set(pl.read_parquet(tmp_path / "past.item.parquet")["item_id"])
    assert known == set(past["item_id"])
    assert stream.texts["i24"] == "three five action"


def test_split_files_are_a_stream_too(config, atomic_dir, tmp_path):
    config = config.unlock()
    config.data.split = "fixed"
    stream = divide(config.lock(), tmp_path, 0.25)
    past = pl.read_parquet(tmp_path / "past.inter.parquet")
    found: dict[str, list[str]] = {}
    for user, item, _ in [*past.iter_rows(), *stream.events]:
        found.setdefault(user, []).append(item)
    want: dict[str, list[str]] = {}
    for user, item, _ in events_of(atomic_dir):
        want.setdefault(user, []).append(item)
    assert found == want
    times = [event.time for event in stream.events]
    assert times == sorted(times)
    # A repeated item is another event.
    assert len(past.unique()) == len(past)


@pytest.mark.parametrize("split", ["leave_one_out", "fixed"])
def test_the_past_can_be_trained_on(config, tmp_path, split):
    """Settings that need columns which the past lacks are reset."""
    config = config.unlock()
    config.data.rating, config.eval.like_threshold = "rating", 4.0
    config.data.min_rating = 2.0 if split != "fixed" else 0.0
    config.data.user_key = str(tmp_path / "key")
    (tmp_path / "key").write_text("0123456789abcdef")
    config.data.split = split
    if split == "fixed":
        config.data.rating, config.eval.like_threshold = "", 0.0
    check_config(divide(config.lock(), tmp_path / "past", 0.25).config)


def test_a_stream_needs_times(config, tmp_path):
    config = config.unlock()
    config.data.time = ""
    with pytest.raises(UserError, match=r"data\.time: a stream needs times"):
        divide(config.lock(), tmp_path, 0.25)


def simulated(tmp_path, monkeypatch, *options):
    """Runs the program; user names have characters that URLs must quote."""
    data = synthetic.write_atomic(tmp_path / "tiny")
    path = data / "tiny.inter"
    path.write_text(path.read_text().replace("u1\t", "u 1/x\t"))
    path = data / "tiny.user"
    path.write_text(path.read_text().replace("u1\t", "u 1/x\t"))
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG.format(data=str(data)))
    program = ["simulate", f"--config={config}", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", [*program, *options])
    simulate.main()


def test_three_curves_are_measured(tmp_path, monkeypatch, capsys):
    options = ("--fraction=0.6", "--periods=2", "--", "--min_events=20", "--epochs=2")
    simulated(tmp_path, monkeypatch, *options)
    table = pl.read_csv(tmp_path / "out" / "table.csv")
    assert table["period"].unique().sort().to_list() == ["1", "2", "all"]
    assert set(simulate.CURVES) < set(table["curve"])
    at_all = table.filter(period="all", metric="ndcg@10")
    assert at_all["events"].to_list() == [216] * 5
    values = dict(zip(at_all["curve"], at_all["value"], strict=True))
    # The next item follows from the last one, which the frozen histories lack.
    assert values["histories updated"] > values["frozen"]
    for row in at_all.iter_rows(named=True):
        assert row["low"] <= row["value"] <= row["high"]
    difference = values["histories updated"] - values["frozen"]
    assert values["histories updated - frozen"] == pytest.approx(difference)
    assert (tmp_path / "out" / "plot.png").stat().st_size > 10_000
    page = (tmp_path / "out" / "table.md").read_text()
    assert "216 events of 40 users" in page
    assert "of 1 candidates" in page
    assert "new events" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [("--fraction=0", "not between 0 and 1"), ("--periods=0", "not at least 1")],
)
def test_numbers_out_of_range_are_one_line(
    tmp_path, monkeypatch, capsys, option, message
):
    with pytest.raises(SystemExit, match="2"):
        simulated(tmp_path, monkeypatch, option)
    assert message in capsys.readouterr().err


def test_daily_learning_follows_the_days_of_the_events(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simulate, "DAY", 1)
    monkeypatch.setattr(simulate.Simulation, "learn", lambda *_: "learned")
    simulated(tmp_path, monkeypatch, "--fraction=0.6", "--periods=2", "--daily")
    times = sorted(event[2] for event in events_of(tmp_path / "tiny"))
    days = times[-round(0.6 * len(times)) :]
    first = [n for n in range(1, len(days)) if days[n] != days[n - 1]]
    assert len(first) > 1
    lines = [x for x in capsys.readouterr().out.splitlines() if x.endswith("learned")]
    assert [int(line.split()[0]) for line in lines] == first


def test_split_files_have_no_days(tmp_path, monkeypatch, capsys):
    data = synthetic.write_atomic(tmp_path / "tiny")
    config = tmp_path / "fixed.py"
    text = CONFIG.format(data=str(data))
    config.write_text(
        text.replace("phase =", 'config.data.split = "fixed"\n    phase =')
    )
    program = ["simulate", f"--config={config}", f"--out={tmp_path}", "--daily"]
    monkeypatch.setattr(sys, "argv", program)
    with pytest.raises(SystemExit, match="2"):
        simulate.main()
    assert "--daily: split files have no times" in capsys.readouterr().err
