"""RecBole atomic files, CSV and Parquet -> checked columnar tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recjax.errors import UserError

SUFFIXES = {"atomic": "", "csv": ".csv", "parquet": ".parquet"}
ISO_DATE = (
    r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
)
ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")


def find_table(folder: Path, stem: str, kind: str, file_format: str) -> Path:
    """Path of a table: `{folder}/{stem}.{kind}` and the format's suffix.

    Args:
      folder: where the data set lies.
      stem: first part of the file name; empty means the folder's name.
      kind: `inter`, `item`, `train.inter`, ...
      file_format: a key of `SUFFIXES`.
    """
    return folder / f"{stem or folder.resolve().name}.{kind}{SUFFIXES[file_format]}"


def read_table(path: Path, file_format: str) -> pl.DataFrame:
    """Reads one table; atomic and CSV columns come as strings, empty ones as "".

    Lists of a Parquet file become their elements with spaces between, as they stand
    in an atomic file; columns of other nested types are left out. Atomic headers
    `name:type` lose their type, which must be one of `ATOMIC_TYPES`.

    Raises:
      UserError: the file is missing or cannot be parsed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if file_format == "parquet":
            return _join_lists(pl.read_parquet(path))
        table = pl.read_csv(
            path,
            separator="\t" if file_format == "atomic" else ",",
            quote_char=None if file_format == "atomic" else '"',
            infer_schema=False,
        )
    except (pl.exceptions.PolarsError, OSError) as e:
        raise UserError(f"{path}: {str(e).splitlines()[0]}") from None
    table = table.fill_null("")
    return _strip_types(table, path) if file_format == "atomic" else table


def texts(table: pl.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column as strings; no value may be missing or empty.

    Raises:
      UserError: no such column, or a row without a value.
    """
    require(table, [column], path)
    values = table[column].cast(pl.String)
    bad = (values.is_null() | (values == "")).fill_null(True)
    if bad.any():
        raise UserError(f"{path}: row {_line(bad)}: {column} is empty")
    return values.to_numpy()


def numbers(table: pl.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column as finite float64.

    Raises:
      UserError: no such column, or a row whose value is not a finite number.
    """
    require(table, [column], path)
    values = table[column].cast(pl.Float64, strict=False)
    bad = ~values.is_finite().fill_null(False)
    if bad.any():
        value = table[column].gather(int(bad.arg_max() or 0)).item()
        raise UserError(
            f"{path}: row {_line(bad)}: {column} is {value!r}, not a number"
        )
    return values.to_numpy()


def times(table: pl.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column of seconds, or of dates as ISO 8601 writes them, as float64 seconds.

    Raises:
      UserError: no such column, a row whose value is neither, or a column of times
        of day or durations.
    """
    require(table, [column], path)
    values = table[column]
    if values.dtype == pl.String:
        iso = values.set(~values.str.contains(ISO_DATE).fill_null(False), None)
        dates = iso.str.to_datetime(strict=False, time_zone="UTC")
        seconds = values.cast(pl.Float64, strict=False)
        values = seconds.zip_with(seconds.is_not_null(), _seconds(dates))
        if values.is_null().any():
            line = _line(values.is_null())
            raise UserError(
                f"{path}: row {line}: {column} is {table[column][line - 2]!r}, neither "
                "seconds nor a date like 2024-05-31 or 2024-05-31T12:00:00"
            )
    elif values.dtype in (pl.Date, pl.Datetime):
        values = _seconds(values)
    elif not values.dtype.is_numeric():
        raise UserError(f"{path}: {column} is of type {values.dtype}, not a time")
    return numbers(pl.DataFrame({column: values}), column, path)


def _seconds(dates: pl.Series) -> pl.Series:
    return dates.dt.epoch("us").cast(pl.Float64) / 1e6


def require(table: pl.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Raises a `UserError` that names every missing column and those there are."""
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns)}"
        )


def _join_lists(table: pl.DataFrame) -> pl.DataFrame:
    out = {}
    for column in table.iter_columns():
        if isinstance(column.dtype, pl.Array):
            column = column.arr.to_list()
        if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
            column = column.cast(pl.List(pl.String)).list.join(" ")
        if not column.dtype.is_nested() and column.dtype not in (pl.Binary, pl.Object):
            out[column.name] = column
    return pl.DataFrame(out)


def _strip_types(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    names = {}
    for column in table.columns:
        name, _, kind = column.rpartition(":")
        if not name or kind not in ATOMIC_TYPES:
            raise UserError(
                f"{path}: header {column!r} is not name:type with type one of "
                f"{', '.join(ATOMIC_TYPES)}"
            )
        names[column] = name
    return table.rename(names)


def _line(bad: pl.Series) -> int:
    """Line in the file of the first bad row, counting the header as line 1."""
    return int(bad.arg_max() or 0) + 2
