"""RecBole atomic files, CSV and Parquet -> tables whose rows are checked one by one.

A bad row is an error in strict mode. Else it is set aside with the reason, so that the
rows of a file are always those used and those rejected.
"""

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.data.ingest.parsing import Parsed, parse_csv, parse_lines

SUFFIXES = {"atomic": "", "csv": ".csv", "parquet": ".parquet"}
ISO_DATE = (
    r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
)
ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")
REJECTED = {
    "file": pl.String,
    "row": pl.Int64,
    "column": pl.String,
    "reason": pl.String,
    "text": pl.String,
}
DAY = 86400.0
SECONDS = "\0seconds"  # a name that no file can have


def find_table(folder: Path, stem: str, kind: str, file_format: str) -> Path:
    """Path of a table: `{folder}/{stem}.{kind}` and the format's suffix.

    Args:
      folder: where the data set lies.
      stem: first part of the file name; empty means the folder's name.
      kind: `inter`, `item`, `train.inter`, ...
      file_format: a key of `SUFFIXES`.
    """
    return folder / f"{stem or folder.resolve().name}.{kind}{SUFFIXES[file_format]}"


@dataclass
class Table:
    """The rows of a file that are good so far.

    Attributes:
      path: of the file.
      frame: good rows; columns of atomic and CSV files as strings, empty ones as "".
      rows: where each stands in the file; the header, where there is one, is row 1.
      rows_in: of the file, blank lines apart.
      strict: whether a bad row is an error.
      rejected: rows set aside, as `REJECTED` says.
    """

    path: Path
    frame: pl.DataFrame
    rows: np.ndarray
    rows_in: int
    strict: bool
    rejected: list[tuple[str, int, str, str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.frame)

    def require(self, *columns: str) -> None:
        """Raises a `UserError` that names the missing columns and those there are."""
        missing = [c for c in columns if c not in self.frame.columns]
        if missing:
            raise UserError(
                f"{self.path}: no column {', '.join(missing)}; it has "
                f"{', '.join(self.frame.columns)}"
            )

    def reject(self, bad: pl.Series | np.ndarray, column: str, reason: str) -> None:
        """Sets rows aside.

        Args:
          bad: which of `frame`.
          column: whose value is bad; "" where it is the whole row.
          reason: completes "column is 'value', ..." or, without a column, "row ...".

        Raises:
          UserError: in strict mode, for the first of them.
        """
        bad = np.asarray(bad, bool)
        if not bad.any():
            return
        values = self.frame[column].filter(bad).to_list() if column else []
        if self.strict:
            value = f"{column} is {values[0]!r}, " if column else ""
            more = f" (and {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
            raise UserError(
                f"{self.path}: row {self.rows[bad][0]}: {value}{reason}{more}"
            )
        shown = self.frame.filter(bad).drop(SECONDS, strict=False)
        for row, one in zip(self.rows[bad], shown.iter_rows(), strict=True):
            text = "\t".join(str(x) for x in one)
            self.rejected.append((self.path.name, int(row), column, reason, text))
        self.frame, self.rows = self.frame.filter(~bad), self.rows[~bad]

    def check_ids(self, column: str) -> None:
        """A column becomes strings; none may be empty or NaN."""
        self.require(column)
        self.frame = self.frame.with_columns(self._cast(column, pl.String, "an id"))
        values = self.frame[column].fill_null("")
        self.reject(values.str.strip_chars() == "", column, "empty")
        lower = self.frame[column].str.to_lowercase()
        self.reject(lower.is_in(["nan", "null"]), column, "not an id")

    def as_texts(self) -> pl.DataFrame:
        """All columns as strings, "" where there is no value."""
        texts = [self._cast(c, pl.String, "a text") for c in self.frame.columns]
        return pl.DataFrame(texts).fill_null("")

    def _cast(self, column: str, dtype: Any, what: str) -> pl.Series:
        values = self.frame[column]
        try:
            return values.cast(dtype)
        except pl.exceptions.PolarsError:
            raise UserError(
                f"{self.path}: {column} is of type {values.dtype}, not {what}"
            ) from None

    def check_numbers(
        self, column: str, least: float = -np.inf, most: float = np.inf
    ) -> None:
        """A column becomes finite float64 within limits."""
        self.require(column)
        dtype = self.frame[column].dtype
        if not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Null)):
            raise UserError(f"{self.path}: {column} is of type {dtype}, not a number")
        values = self.frame[column].cast(pl.Float64, strict=False)
        self.reject(~values.is_finite().fill_null(False), column, "not a number")
        values = self.frame[column].cast(pl.Float64)
        outside = (values < least) | (values > most)
        self.reject(outside, column, f"not within {least:g} and {most:g}")
        self.frame = self.frame.with_columns(pl.col(column).cast(pl.Float64))

    def check_times(self, column: str) -> None:
        """A column of seconds, or of dates as ISO 8601 writes them, becomes seconds.

        Raises:
          UserError: a column of times of day or durations, too.
        """
        self.require(column)
        values = self.frame[column]
        if values.dtype == pl.String:
            number = values.cast(pl.Float64, strict=False)
            values = number.zip_with(number.is_not_null(), _parse_dates(values))
        elif values.dtype in (pl.Date, pl.Datetime):
            values = _seconds(values)
        elif not values.dtype.is_numeric():
            raise UserError(
                f"{self.path}: {column} is of type {values.dtype}, not a time"
            )
        seconds = values.cast(pl.Float64).alias(SECONDS)
        self.frame = self.frame.with_columns(seconds)

        def reject(bad: pl.Series, reason: str) -> None:
            self.reject(bad.fill_null(True), column, reason)

        known = self.frame[SECONDS].is_finite()
        reject(
            ~known, "neither seconds nor a date like 2024-05-31 or 2024-05-31T12:00:00"
        )
        reject(self.frame[SECONDS] < 0, "before 1970")
        now = time.time() + DAY
        reject(self.frame[SECONDS] > 30 * now, "too large for seconds: milliseconds?")
        reject(self.frame[SECONDS] > now, "in the future")
        self.frame = self.frame.drop(column).rename({SECONDS: column})

    def check_known(self, column: str, known: pl.Series, where: object) -> None:
        """Every value of a column must be one of those."""
        found = self.frame[column].is_in(known.cast(pl.String).implode())
        self.reject(~found, column, f"not in {where}")

    def check_distinct(self, columns: Sequence[str], reason: str) -> None:
        """The first row of those that are equal in these columns stays."""
        first = self.frame.select(pl.struct(columns).is_first_distinct()).to_series()
        self.reject(~first, columns[0] if len(columns) == 1 else "", reason)

    def hash_ids(self, column: str, key: bytes) -> None:
        """Replaces every id by its keyed hash, HMAC-SHA256, as hex digits."""
        names = self.frame[column].unique()
        hashed = [hmac.digest(key, x.encode(), "sha256").hex() for x in names]
        both = dict(zip(names, hashed, strict=True))
        self.frame = self.frame.with_columns(pl.col(column).replace_strict(both))


def read_table(path: Path, file_format: str, *, strict: bool = True) -> Table:
    """Reads one table.

    Lists of a Parquet file become their elements with spaces between, as they stand
    in an atomic file; columns of other nested types are left out. Atomic headers
    `name:type` lose their type, which must be one of `ATOMIC_TYPES`.

    Raises:
      UserError: the file is missing or cannot be parsed; in strict mode, a row that
        does not have the header's columns.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if file_format == "parquet":
        try:
            frame = _join_lists(pl.read_parquet(path))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as e:
            raise UserError(f"{path}: {_first_line(e)}") from None
        parsed = Parsed(frame, np.arange(1, len(frame) + 1))
    elif file_format == "csv":
        parsed = parse_csv(path.read_bytes(), path)
    else:
        parsed = parse_lines(path.read_bytes(), "\t", path)
        parsed.frame = _strip_types(parsed.frame, path)
    if strict and parsed.bad:
        row, reason, _ = min(parsed.bad)
        raise UserError(f"{path}: row {row}: {reason}")
    rejected = [(path.name, row, "", reason, text) for row, reason, text in parsed.bad]
    size = len(parsed.frame) + len(parsed.bad)
    return Table(path, parsed.frame, parsed.rows, size, strict, rejected)


def _first_line(e: BaseException) -> str:
    return next(iter(str(e).splitlines()), type(e).__name__)


def _parse_dates(texts: pl.Series) -> pl.Series:
    """ISO 8601 -> seconds; null for anything else."""
    plain = texts.str.replace("T", " ").str.replace("Z$", "+00:00")
    zone = plain.str.contains(r":\d{2}(\.\d+)?[+-]\d{2}:?\d{2}$").fill_null(False)
    found = pl.Series([None] * len(texts), dtype=pl.Float64)
    for clock in ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f"):
        for suffix, which in (("", ~zone), ("%z", zone)):
            if not clock and suffix:
                continue
            some = plain.set(~which, None)
            dates = some.str.to_datetime(
                f"%Y-%m-%d{clock}{suffix}", strict=False, time_unit="us"
            )
            found = found.zip_with(found.is_not_null(), _seconds(dates))
    return found.set(~texts.str.contains(ISO_DATE).fill_null(False), None)


def _seconds(dates: pl.Series) -> pl.Series:
    return dates.dt.epoch("us").cast(pl.Float64) / 1e6


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
    names: dict[str, str] = {}
    for column in table.columns:
        name, _, kind = column.rpartition(":")
        if not name or kind not in ATOMIC_TYPES:
            raise UserError(
                f"{path}: header {column!r} is not name:type with type one of "
                f"{', '.join(ATOMIC_TYPES)}"
            )
        if name in names.values():
            raise UserError(f"{path}: header: {name!r} stands there twice")
        names[column] = name
    return table.rename(names)
