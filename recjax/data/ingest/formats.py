"""Reads atomic files, CSV and Parquet into tables; their rows are checked later."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import polars as pl

from recjax.common.errors import UserError, first_line
from recjax.common.files import sha256
from recjax.data.ingest.files import find_table, join_lines, read_parts
from recjax.data.ingest.parsing import NEWLINE, Parsed, clean, parse_csv, parse_lines
from recjax.data.ingest.tables import BadRow, Table

SUFFIXES = {"atomic": "", "csv": ".csv", "parquet": ".parquet"}
PARQUET = b"PAR1"  # how such a file begins
ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")


def read_table(path: Path, file_format: str) -> Table:
    """Reads the table of a path, or that of its compressed file, see `read_file`.

    Raises:
      UserError: there is neither, or both; or it cannot be parsed.
    """
    return read_file(find_table(path), file_format)


def read_file(path: Path, file_format: str) -> Table:
    """Reads exactly this table, in one of the formats in `SUFFIXES`.

    Lists of a Parquet file are joined with spaces, as in an atomic file; columns of
    other nested types are dropped. Atomic headers are `name:type`, with one of
    `ATOMIC_TYPES`; the type is removed.

    Raises:
      UserError: the file is missing or cannot be parsed.
    """
    # Read once, so that the digest is that of the rows.
    parts = read_parts(path)
    unreadable: dict[str, str] = {}
    if file_format == "parquet":
        try:
            tables = [pl.read_parquet(io.BytesIO(part)) for part in parts]
            everything = pl.concat(tables, how="vertical_relaxed")
            frame = join_lists(everything)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as e:
            raise UserError(f"{path}: {first_line(e)}") from None
        parsed = Parsed(frame, np.arange(1, len(frame) + 1))
        left_out = [name for name in everything.columns if name not in frame.columns]
        unreadable = {name: str(everything[name].dtype) for name in left_out}
        texts: Callable[[int], str] = partial(_joined_row, frame)
    else:
        if any(part.startswith(PARQUET) for part in parts):
            raise UserError(f"{path}: is a Parquet file; set data.format to 'parquet'")
        # Some systems write empty parts too.
        filled = [part for part in parts if part.strip()] or parts[:1]
        raw = join_lines([clean(part, path) for part in filled], path)
        if file_format == "csv":
            parsed = parse_csv(raw, path)
        else:
            parsed = parse_lines(raw, "\t", path)
            parsed.frame = _strip_types(parsed.frame, path)
        bad_numbers = np.array([number for number, _ in parsed.bad], np.int64)
        numbers = np.append(parsed.line_numbers, bad_numbers)
        texts = RowTexts(raw, np.sort(numbers))
    return Table(
        path,
        parsed.frame,
        parsed.line_numbers,
        len(parsed.frame) + len(parsed.bad),
        sha256(b"".join(parts)),
        texts,
        unreadable,
        [BadRow(number, "", reason, "") for number, reason in parsed.bad],
    )


def _joined_row(frame: pl.DataFrame, number: int) -> str:
    """Returns the values of a row of a Parquet file, separated by tabs."""
    return "\t".join("" if x is None else str(x) for x in frame.row(number - 1))


@dataclass(frozen=True)
class RowTexts:
    """The texts of the rows of a file; a row may have several lines.

    Attributes:
      raw: the bytes of the file, with LF at the end of every line.
      numbers: numbers of the lines where rows begin, ascending.
    """

    raw: bytes
    numbers: np.ndarray

    @cached_property
    def _line_starts(self) -> np.ndarray:
        (ends,) = np.nonzero(np.frombuffer(self.raw, np.uint8) == NEWLINE)
        return np.append(0, ends + 1)

    def __call__(self, number: int) -> str:
        """Returns the text of the row that begins in a line."""
        after = np.searchsorted(self.numbers, number, side="right")
        end = len(self.raw)
        if after < len(self.numbers):
            end = self._line_starts[self.numbers[after] - 1]
        text = self.raw[self._line_starts[number - 1] : end].strip(b"\n")
        return text.decode("utf-8", "replace")


def join_lists(table: pl.DataFrame) -> pl.DataFrame:
    """Joins lists with spaces and drops columns that cannot become strings."""
    out = {}
    for column in table.iter_columns():
        if column.dtype == pl.Binary:  # as other systems write text
            with contextlib.suppress(pl.exceptions.PolarsError):
                column = column.cast(pl.String)
        if isinstance(column.dtype, pl.Array):
            column = column.arr.to_list()
        if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
            column = column.cast(pl.List(pl.String)).list.join(" ")
        if not column.dtype.is_nested() and column.dtype not in (pl.Binary, pl.Object):
            out[column.name] = column
    return pl.DataFrame(out)


def _strip_types(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Renames columns `name:type` to `name`."""
    names: dict[str, str] = {}
    for column in table.columns:
        name, _, kind = column.rpartition(":")
        if not name or kind not in ATOMIC_TYPES:
            raise UserError(
                f"{path}: header {column!r} is not name:type with type one of "
                f"{', '.join(ATOMIC_TYPES)}"
            )
        if name in names.values():
            raise UserError(f"{path}: header: {name!r} appears twice; rename one")
        names[column] = name
    return table.rename(names)
