"""Reads and converts tables of polars and pandas, without importing pandas."""

import io
from pathlib import Path
from typing import Any

import polars as pl

from recjax.common.errors import UserError


def read_parquet(path: Path) -> pl.DataFrame:
    """Reads a Parquet file; polars would take its path as a pattern."""
    return pl.read_parquet(io.BytesIO(path.read_bytes()))


def is_frame(value: Any) -> bool:
    """Returns whether a value is a table of polars or of pandas."""
    if isinstance(value, pl.DataFrame | pl.LazyFrame):
        return True
    return hasattr(value, "iloc") and hasattr(value, "columns")


def to_polars(frame: Any, name: str) -> pl.DataFrame:
    """Returns a table as a polars frame; a pandas one is converted column by column.

    Missing values of pandas (NaN, NaT, NA and None) become null.

    Args:
      frame: a table of polars or of pandas.
      name: the argument that holds it, for errors.

    Raises:
      UserError: it is lazy, or two columns have the same name.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        raise UserError(f"{name}: is a LazyFrame; call its collect() first")
    columns: dict[str, pl.Series] = {}
    for index, label in enumerate(map(str, frame.columns)):
        if label in columns:
            raise UserError(f"{name}: column {label!r} appears twice; rename one")
        column = frame.iloc[:, index]
        pairs = zip(column.to_list(), column.isna(), strict=True)
        columns[label] = _to_series([None if is_na else x for x, is_na in pairs])
    return pl.DataFrame(columns)


def _to_series(values: list[Any]) -> pl.Series:
    """Returns values as a column; objects of several types stay as they are."""
    try:
        return pl.Series(values)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(values, dtype=pl.Object)


def like(frame: pl.DataFrame, given: Any) -> Any:
    """Returns a table as a pandas frame if a pandas frame was given."""
    if is_frame(given) and not isinstance(given, pl.DataFrame):
        return type(given)(frame.to_dict(as_series=False))
    return frame
