"""Parses the bytes of a table into columns of strings, and reports malformed rows."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from recjax.common.errors import UserError

NEWLINE, RETURN, NUL = 10, 13, 0
MAX_LINES = 1000  # of a row
INDEX = "index"  # name of a first column without a name
csv.field_size_limit(2**31 - 1)  # a text may be longer than Python's 128 KiB


@dataclass
class Parsed:
    """The content of a file; `frame` has the well-formed rows, with strings only."""

    frame: pl.DataFrame
    line_numbers: np.ndarray  # line where each of these rows begins; the first is 1
    # Line number and reason of each malformed row.
    bad: list[tuple[int, str]] = field(default_factory=list)


def parse_lines(raw: bytes, separator: str, path: Path) -> Parsed:
    """Parses a table without quoting: one row per line, blank lines skipped.

    The separator is one byte; lines end with LF or CRLF.

    Raises:
      UserError: the header is missing, or names a column twice.
    """
    raw = clean(raw, path)
    # Files have millions of lines. Counting bytes in arrays finds the few that may be
    # malformed, and only these are checked one by one.
    bytes_ = np.frombuffer(raw, np.uint8)
    (ends,) = np.nonzero(bytes_ == NEWLINE)
    starts = np.append(0, ends[:-1] + 1)
    columns = _header(raw[: ends[0]], path, lambda line: line.split(separator))

    def count(is_counted: np.ndarray) -> np.ndarray:
        """Number of marked bytes in each line."""
        (positions,) = np.nonzero(is_counted)
        return np.searchsorted(positions, ends) - np.searchsorted(positions, starts)

    uneven = count(bytes_ == ord(separator)) != len(columns) - 1
    special = count((bytes_ >= 128) | (bytes_ == RETURN) | (bytes_ == NUL)) > 0
    good = ends > starts  # neither a blank line nor the header
    good[0] = False
    bad = []
    for i in np.flatnonzero(good & (uneven | special)):
        line = raw[starts[i] : ends[i]]
        if reason := _line_problem(line, separator, len(columns)):
            good[i] = False
            bad.append((int(i) + 1, reason))
    body = bytes_[np.repeat(good, ends + 1 - starts)].tobytes()
    frame = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    if body:
        frame = pl.read_csv(
            io.BytesIO(body),
            has_header=False,
            new_columns=columns,
            separator=separator,
            quote_char=None,
            infer_schema=False,  # ids like "007" stay strings
            empty_string_is_null=False,
        )
    if len(frame) != good.sum():  # Polars must agree with the counts above
        raise UserError(f"{path}: {len(frame)} of {good.sum()} rows could be read")
    return Parsed(frame, np.flatnonzero(good) + 1, bad)


def parse_csv(raw: bytes, path: Path) -> Parsed:
    """Parses a CSV table, where quoted values may have commas, line ends and quotes.

    A line whose quotes do not match is malformed, and parsing continues with the next
    line. Otherwise as `parse_lines`.
    """
    if b'"' not in raw:  # much faster, and the same result
        return parse_lines(raw, ",", path)
    raw = clean(raw, path)
    first, _, rest = raw.partition(b"\n")
    columns = _header(first, path, lambda line: next(csv.reader([line])))
    # Invalid bytes become surrogates, which `_row_problem` looks for.
    lines = rest.decode("utf-8", "surrogateescape").split("\n")[:-1]
    good: list[list[str]] = []
    line_numbers: list[int] = []
    bad: list[tuple[int, str]] = []
    next_line = 0  # index in `lines`; the number in the file is larger by two
    while next_line < len(lines):
        start = next_line
        begin = [start]  # of the present row
        remaining = _lines_of_short_rows(lines, begin)
        reader = csv.reader(remaining, strict=True)
        try:
            for row in reader:
                line, next_line = next_line, start + reader.line_num
                begin[0] = next_line
                if not row:
                    continue  # a blank line
                if reason := _row_problem(row, len(columns)):
                    bad.append((line + 2, reason))
                else:
                    good.append(row)
                    line_numbers.append(line + 2)
        except csv.Error as e:
            # A quote that is never closed would swallow all remaining lines.
            bad.append((next_line + 2, f"quotes do not fit: {e}"))
            next_line += 1
    frame = pl.DataFrame(good, dict.fromkeys(columns, pl.String), orient="row")
    return Parsed(frame, np.array(line_numbers, np.int64), bad)


def _lines_of_short_rows(lines: list[str], begin: list[int]) -> Iterator[str]:
    """Yields lines from `begin` on; a quote that is never closed ends with an error.

    The reader of the lines keeps the line where the present row begins in `begin`.
    """
    for i in range(begin[0], len(lines)):
        # Without a limit, each of many open quotes would be sought to the end of file.
        if i - begin[0] > MAX_LINES:
            raise csv.Error(f"not closed within {MAX_LINES} lines")
        yield lines[i] + "\n"


def clean(raw: bytes, path: Path) -> bytes:
    """Removes a byte order mark and ends every line with LF.

    Raises:
      UserError: the file is empty, or in UTF-16.
    """
    if not raw.strip():
        raise UserError(f"{path}: empty; it needs a header and rows")
    # Without a byte order mark, every second byte of Latin letters is 0.
    halves = raw[:64:2].strip(b"\0"), raw[1:64:2].strip(b"\0")
    wide = len(raw) > 1 and any(halves) and not all(halves)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or wide:
        raise UserError(f"{path}: is in UTF-16; save it as UTF-8")
    raw = raw.removeprefix(b"\xef\xbb\xbf")  # byte order mark of UTF-8
    raw = raw.replace(b"\r\n", b"\n")
    if b"\n" not in raw:  # lines end with CR alone, as on very old systems
        raw = raw.replace(b"\r", b"\n")
    return raw if raw.endswith(b"\n") else raw + b"\n"


def _header(line: bytes, path: Path, split: Callable[[str], list[str]]) -> list[str]:
    """Splits the first line into column names."""
    try:
        columns = split(line.decode("utf-8"))
    except (UnicodeDecodeError, csv.Error, StopIteration):
        problem = "the header cannot be read; save it as UTF-8"
        raise UserError(f"{path}: row 1: {problem}") from None
    if twice := {c for c in columns if columns.count(c) > 1}:
        problem = f"column {min(twice)!r} appears twice; rename one"
        raise UserError(f"{path}: row 1: {problem}")
    # The index of a table that pandas wrote has no name.
    if columns[0] == "" and len(columns) > 1 and INDEX not in columns:
        columns[0] = INDEX
    if not all(columns) or NUL in line:
        raise UserError(f"{path}: row 1: a column without a name; name all columns")
    return columns


def _line_problem(line: bytes, separator: str, num_columns: int) -> str:
    """Says why a line is malformed; "" if it is well-formed."""
    try:
        found = len(line.decode("utf-8").split(separator))
    except UnicodeDecodeError:
        return "not UTF-8"
    if NUL in line:
        return "a NUL byte"
    if RETURN in line:
        return "a carriage return inside"
    return "" if found == num_columns else f"{found} columns, not {num_columns}"


def _row_problem(row: list[str], num_columns: int) -> str:
    """Says why a row is malformed; "" if it is well-formed."""
    text = "".join(row)
    if len(row) != num_columns:
        return f"{len(row)} columns, not {num_columns}"
    if "\0" in text:
        return "a NUL byte"
    return "not UTF-8" if any("\udc80" <= c <= "\udcff" for c in text) else ""
