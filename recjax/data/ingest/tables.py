"""Checks the rows of a table.

A bad row is an error in strict mode. Otherwise it is rejected and kept with the reason,
so that every row of a file is either used or rejected.

Reasons of rejected rows are part of the protocol fingerprint: a reason that is reworded
needs an entry in `reader.REASON_IN_PROTOCOL`.
"""

import hmac
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recjax.common.errors import UserError

# Regexes of ISO 8601: a time of day with an optional zone, and a date with or without.
CLOCK = r"\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z| ?UTC|[+-]\d{2}:?\d{2})?"
ISO_DATE = rf"^\d{{4}}-\d{{2}}-\d{{2}}([T ]{CLOCK})?$"
REJECTED = {  # columns of a table of rejected rows
    "file": pl.String,
    "row": pl.Int64,
    "column": pl.String,
    "reason": pl.String,
    "value": pl.String,
    "text": pl.String,
}
NUM_SHOWN = 10  # bad rows that an error shows
DAY = 86400.0  # seconds
HOW_TO_FIX = "correct the file, or set data.strict=False to reject bad rows"
NO_TIME = "neither seconds nor a date like 2024-05-31 or 2024-05-31T12:00:00"
TIME_TYPES = (pl.String, pl.Date, pl.Datetime)
MISSING_IDS = ("nan", "null", "none", "<na>")  # as other programs write them
EMPTY, NOT_AN_ID = "empty", "not an id"  # reasons of rejected ids
SECONDS = "\0seconds"  # temporary column; no file has it, as NUL bytes are rejected


class BadRow(NamedTuple):
    """A row that is not used; the column and its value are "" if no value is bad."""

    number: int
    column: str
    reason: str
    value: str

    def describe(self) -> str:
        """Describes the row and its problem for a message."""
        value = f"{self.column} is {self.value!r}, " if self.column else ""
        return f"row {self.number}: {value}{self.reason}"


@dataclass
class Table:
    """The rows of a file that have passed all checks so far.

    Values of atomic and CSV files are strings, "" where empty. The header is line 1;
    Parquet has no header, and its first row is 1.
    """

    path: Path
    frame: pl.DataFrame  # good rows
    line_numbers: np.ndarray  # of the good rows
    num_rows: int  # of the file, without blank lines
    sha256: str  # of the bytes that were read
    texts: Callable[[int], str]  # the text of a row in the file, by its number
    unreadable: dict[str, str]  # columns that were left out, and their types
    rejected: list[BadRow] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)  # config keys by their columns

    def __len__(self) -> int:
        return len(self.frame)

    def require(self, column: str) -> None:
        """Raises a `UserError` if the column is missing."""
        known = self.frame.columns
        if column == "*" or (column.startswith("^") and column.endswith("$")):
            problem = f"the name {column} would select other columns too"
            raise UserError(f"{self.path}: {problem}; rename the column")
        if column in self.unreadable:
            problem = f"{column} is of type {self.unreadable[column]}"
            raise UserError(f"{self.path}: {problem}; save it as text or numbers")
        if column not in known:
            key = f" ({self.keys[column]})" if column in self.keys else ""
            problem = f"no column {column}{key}; it has {', '.join(known)}"
            if len(known) == 1 and re.search("[;\t|]", known[0]):
                problem += "; separate the columns by commas, or see data.format"
            raise UserError(f"{self.path}: {problem}")

    def reject(self, bad: pl.Expr, column: str, reason: str) -> None:
        """Removes bad rows from the frame and records them.

        Args:
          bad: whether to reject a row of `frame`; null rejects it too.
          column: column of the bad value; "" if the row as a whole is bad.
          reason: completes "row 3: column is 'value', ..." or "row 3: ...".
        """
        is_bad = self.frame.select(bad=bad.fill_null(True))["bad"].to_numpy()
        if not is_bad.any():
            return
        numbers = self.line_numbers[is_bad].tolist()
        values = self.frame.filter(is_bad)[column] if column else [""] * len(numbers)
        self.rejected += [
            BadRow(number, column, reason, "" if value is None else str(value))
            for number, value in zip(numbers, values, strict=True)
        ]
        self.frame = self.frame.filter(~is_bad)
        self.line_numbers = self.line_numbers[~is_bad]

    def refuse_bad_rows(self) -> None:
        """Refuses the table if it has bad rows.

        Raises:
          UserError: shows the first of them in the order of the file, and counts them
            by reason.
        """
        bad = sorted(self.rejected)
        if not bad:
            return
        more = f" (and {len(bad) - 1:,} more rows)" if len(bad) > 1 else ""
        details = [row.describe() for row in bad[1:NUM_SHOWN]]
        if len(bad) > NUM_SHOWN:
            details.append(f"... of {len(bad):,} bad rows: {count_reasons(bad)}")
        raise UserError(
            f"{self.path}: {bad[0].describe()}{more}; {HOW_TO_FIX}", details=details
        )

    def rejected_rows(self) -> list[tuple[str, int, str, str, str, str]]:
        """Returns the bad rows in the order of the file, with columns `REJECTED`."""
        name = self.path.name
        return [(name, *row, self.texts(row.number)) for row in sorted(self.rejected)]

    def check_ids(self, column: str) -> None:
        """Casts a column to strings and rejects empty ones and NaN."""
        self.require(column)
        self.frame = self.frame.with_columns(self._cast(column, "an id"))
        for reason in (EMPTY, NOT_AN_ID):
            self.reject(id_problem(column).eq_missing(reason), column, reason)

    def as_texts(self) -> pl.DataFrame:
        """All columns cast to strings, "" where a value is missing."""
        texts = [self._cast(column, "a text") for column in self.frame.columns]
        return pl.DataFrame(texts).fill_null("")

    def _cast(self, column: str, expected: str) -> pl.Series:
        try:
            return self.frame[column].cast(pl.String)
        except pl.exceptions.PolarsError:
            raise self._wrong_type(column, expected) from None

    def _wrong_type(self, column: str, expected: str) -> UserError:
        dtype = self.frame[column].dtype
        return UserError(f"{self.path}: {column} is of type {dtype}, not {expected}")

    def check_numbers(
        self, column: str, low: float = -np.inf, high: float = np.inf
    ) -> None:
        """Casts a column to float64; rejects values not finite or out of range."""
        self.require(column)
        dtype = self.frame[column].dtype
        if not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Null)):
            raise self._wrong_type(column, "a number")
        values = pl.col(column).cast(pl.Float64, strict=False)
        self.reject(~values.is_finite(), column, "not a number")
        outside = (values < low) | (values > high)
        self.reject(outside, column, f"not within {low:g} and {high:g}")
        self.frame = self.frame.with_columns(values)

    def check_times(self, column: str) -> None:
        """Converts a column of seconds or ISO 8601 dates to seconds since 1970.

        Raises:
          UserError: the column is missing, or of a type like time of day or duration.
        """
        self.require(column)
        values = self.frame[column]
        if not (values.dtype.is_numeric() or values.dtype in TIME_TYPES):
            raise self._wrong_type(column, "a time")
        values = to_seconds(values)
        if _are_days(values):
            problem = "looks like days (20240531), not seconds; write 2024-05-31"
            raise UserError(f"{self.path}: {column}: {problem}")
        # Next to the original column: messages and rejected rows show its values.
        self.frame = self.frame.with_columns(values.cast(pl.Float64).alias(SECONDS))
        seconds, now = pl.col(SECONDS), time.time() + DAY
        for bad, reason in (
            (~seconds.is_finite(), NO_TIME),
            (seconds < 0, "before 1970"),
            # Milliseconds are 1000 times too large; 30 tells them from future seconds.
            (seconds > 1e5 * now, "too large for seconds: micro- or nanoseconds?"),
            (seconds > 30 * now, "too large for seconds: milliseconds?"),
            (seconds > now, "in the future"),
        ):
            self.reject(bad, column, reason)
        self.frame = self.frame.drop(column).rename({SECONDS: column})

    def check_known(self, column: str, known: pl.Series, where: object) -> None:
        """Rejects rows whose value is not in `known`, the ids of the file `where`."""
        found = pl.col(column).is_in(known.cast(pl.String).implode())
        self.reject(~found, column, f"not in {where}")

    def check_distinct(self, columns: Sequence[str], reason: str) -> None:
        """Rejects rows that equal an earlier row in these columns."""
        repeated = ~pl.struct(columns).is_first_distinct()
        self.reject(repeated, columns[0] if len(columns) == 1 else "", reason)

    def hash_ids(self, column: str, key: bytes) -> None:
        """Replaces every id by its keyed hash: HMAC-SHA256, in hex."""
        hashes = {
            name: hmac.digest(key, name.encode(), "sha256").hex()
            for name in self.frame[column].unique()
        }
        self.frame = self.frame.with_columns(pl.col(column).replace_strict(hashes))


def is_id(text: str) -> bool:
    """Returns whether a text can be an id of a data set; `id_problem` is the same."""
    return bool(text.strip()) and text.lower() not in MISSING_IDS


def id_problem(column: str) -> pl.Expr:
    """Returns why a text of a column is no id, `EMPTY` or `NOT_AN_ID`; null if it is.

    The rule is that of `is_id`; a missing value is empty.
    """
    values = pl.col(column)
    is_empty = values.str.strip_chars().fill_null("") == ""
    is_missing = values.str.to_lowercase().is_in(MISSING_IDS)
    problem = pl.when(is_empty).then(pl.lit(EMPTY))
    return problem.when(is_missing).then(pl.lit(NOT_AN_ID))


def count_reasons(bad: Iterable[BadRow]) -> str:
    """Counts bad rows by column and reason, the most frequent first."""
    names = (f"{row.column}: {row.reason}" if row.column else row.reason for row in bad)
    counts = Counter(names).most_common()
    return "; ".join(f"{count:,} x {name}" for name, count in counts)


def to_seconds(values: pl.Series) -> pl.Series:
    """Converts seconds, dates or ISO 8601 texts to seconds since 1970, else null."""
    if values.dtype == pl.String:
        number = values.cast(pl.Float64, strict=False)
        return number.zip_with(number.is_not_null(), _parse_dates(values))
    return _seconds(values) if values.dtype in (pl.Date, pl.Datetime) else values


def _are_days(values: pl.Series) -> bool:
    """Returns whether all numbers read as a year, a month and a day."""
    numbers = values.cast(pl.Float64).drop_nulls()
    numbers = numbers.filter(numbers.is_finite())
    years, rest = numbers // 10_000, numbers % 10_000
    months, days = rest // 100, rest % 100
    fits = years.is_between(1970, 2100) & months.is_between(1, 12)
    return len(numbers) > 0 and bool((fits & days.is_between(1, 31)).all())


def _parse_dates(texts: pl.Series) -> pl.Series:
    """Parses ISO 8601 into seconds; null for anything else."""
    plain = texts.str.replace("(Z| ?UTC)$", "+00:00").str.replace("T", " ")
    zone = plain.str.contains(r":\d{2}(\.\d+)?[+-]\d{2}:?\d{2}$").fill_null(False)
    found = pl.Series([None] * len(texts), dtype=pl.Float64)
    # Polars parses a column with one format; each pass adds what its format fits.
    clocks = ("%H:%M", "%H:%M:%S", "%H:%M:%S%.f")
    formats = [("%Y-%m-%d", ~zone)]  # a date alone has no time zone
    formats += [(f"%Y-%m-%d {clock}", ~zone) for clock in clocks]
    formats += [(f"%Y-%m-%d {clock}%z", zone) for clock in clocks]
    for form, fits in formats:
        dates = plain.set(~fits, None).str.to_datetime(
            form, strict=False, time_unit="us"
        )
        found = found.zip_with(found.is_not_null(), _seconds(dates))
    # Polars also accepts what is not ISO 8601, such as "2024-5-31".
    return found.set(~texts.str.contains(ISO_DATE).fill_null(False), None)


def _seconds(dates: pl.Series) -> pl.Series:
    return dates.dt.epoch("us").cast(pl.Float64) / 1e6
