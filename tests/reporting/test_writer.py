"""Tables of a run directory: complete, deleted if empty, or a full disk is named."""

import polars as pl
import pytest

from recjax.common.errors import UserError
from recjax.reporting.writer import Reporter

pytestmark = pytest.mark.unit

ROWS = pl.DataFrame({"row": [1, 2]})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_table_replaces_an_earlier_one(tmp_path):
    reporter = Reporter(tmp_path, active=True)
    reporter.table("rejected", ROWS)
    assert names(tmp_path) == ["rejected.csv", "rejected.parquet"]
    assert pl.read_csv(tmp_path / "rejected.csv").equals(ROWS)
    reporter.table("rejected", ROWS.clear())
    assert names(tmp_path) == []


@pytest.mark.parametrize("method", ["write_parquet", "write_csv"])
def test_a_full_disk_is_named(tmp_path, monkeypatch, method):
    def full(*_):
        raise pl.exceptions.ComputeError("No space left on device")

    monkeypatch.setattr(pl.DataFrame, method, full)
    reporter, suffix = Reporter(tmp_path, active=True), method.removeprefix("write_")
    with pytest.raises(UserError, match=rf"rejected.{suffix}: cannot be written \(No"):
        reporter.table("rejected", ROWS)
    if suffix == "parquet":
        with pytest.raises(UserError, match=r"ranks.parquet: cannot be written \(No"):
            reporter.ranks_table({"user": ["a", "b"]}, [])
