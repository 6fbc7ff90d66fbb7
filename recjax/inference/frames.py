"""Reads and converts tables of polars and pandas, without importing pandas."""

import io
from pathlib import Path
from typing import Any

import polars as pl

from recjax.common.errors import UserError
from recjax.data.ingest.tables import to_seconds


def read_parquet(path: Path) -> pl.DataFrame:
    """Reads a Parquet file; polars would take its path as a pattern."""
    return pl.read_parquet(io.BytesIO(path.read_bytes()))


def is_frame(value: Any) -> bool:
    """Returns whether a value is a table of polars or of pandas."""
    return isinstance(value, pl.DataFrame) or hasattr(value, "iloc")


def to_polars(frame: Any) -> pl.DataFrame:
    """Returns a table as a polars frame; a pandas one is converted column by column."""
    if isinstance(frame, pl.DataFrame):
        return frame
    return pl.DataFrame({str(name): frame[name].to_list() for name in frame.columns})


def like(frame: pl.DataFrame, given: Any) -> Any:
    """Returns a table as a pandas frame if a pandas frame was given."""
    if is_frame(given) and not isinstance(given, pl.DataFrame):
        return type(given)(frame.to_dict(as_series=False))
    return frame


def group_by_user(frame: pl.DataFrame, data: Any) -> tuple[list[str], list[list[Any]]]:
    """Returns the users of a table of interactions, and their items by time.

    Args:
      frame: the table.
      data: the section `data` of the config, which names the columns.

    Raises:
      UserError: a column is missing, or a value is no time.
    """
    for column in (data.user, data.item):
        if column not in frame.columns:
            known = ", ".join(frame.columns)
            raise UserError(f"histories: no column {column!r}; there are {known}")
    if data.time and data.time in frame.columns:
        seconds = to_seconds(frame[data.time])
        if seconds.null_count():
            bad = frame[data.time].filter(seconds.is_null())[0]
            raise UserError(f"histories: {data.time} has {bad!r}, which is no time")
        frame = frame.with_columns(seconds).sort(data.time, maintain_order=True)
    grouped = frame.group_by(data.user, maintain_order=True).agg(pl.col(data.item))
    return grouped[data.user].cast(pl.String).to_list(), grouped[data.item].to_list()
