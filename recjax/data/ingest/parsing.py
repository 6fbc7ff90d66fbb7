"""Parses the bytes of a table into columns of strings, and reports malformed rows."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from recjax.common.errors import UserError

NEWLINE, RETURN, NUL = 10, 13, 0
csv.field_size_limit(2**31 - 1)  # a text may be longer than Python's 128 KiB


@dataclass
class Parsed:
    """The content of a file.

    Attributes:
      frame: well-formed rows; all values are strings, "" where empty.
      line_numbers: line of the file where each of these rows begins; the first is 1.
      bad: (line number, reason, text) of every malformed row.
    """

    frame: pl.DataFrame
    line_numbers: np.ndarray
    bad: list[tuple[int, str, str]] = field(default_factory=list)


def parse_lines(raw: bytes, separator: str, path: Path) -> Parsed:
    """Parses a table without quoting: one row per line, blank lines skipped.

    Works on arrays of byte positions, because files have millions of lines.

    Args:
      raw: the file, in UTF-8; line ends are LF or CRLF.
      separator: one byte.
      path: for messages.

    Raises:
      UserError: the header is missing, or names a column twice.
    """
    raw = _clean(raw, path)
    bytes_ = np.frombuffer(raw, np.uint8)
    (ends,) = np.nonzero(bytes_ == NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    columns = _header(raw[: ends[0]], path, lambda line: line.split(separator))

    def count(byte: int) -> np.ndarray:
        """How often a byte occurs in each line."""
        (positions,) = np.nonzero(bytes_ == byte)
        return np.searchsorted(positions, ends) - np.searchsorted(positions, starts)

    separators = count(ord(separator))
    reasons = np.full(len(ends), "", object)
    wrong = separators != len(columns) - 1
    reasons[wrong] = [f"{n + 1} columns, not {len(columns)}" for n in separators[wrong]]
    reasons[count(RETURN) > 0] = "a carriage return inside"
    reasons[count(NUL) > 0] = "a NUL byte"
    for line in _undecodable(raw, bytes_, starts, ends):
        reasons[line] = "not UTF-8"
    present = ends > starts  # neither a blank line nor the header
    present[0] = False
    good = present & (reasons == "")
    (bad,) = np.nonzero(present & ~good)
    body = bytes_[np.repeat(good, np.diff(np.append(starts, len(raw))))].tobytes()
    frame = _frame_of_lines(body, separator, columns)
    if len(frame) != good.sum():  # Polars must agree with the counts above
        raise UserError(f"{path}: {len(frame)} of {good.sum()} rows could be read")
    texts = [raw[starts[i] : ends[i]].decode("utf-8", "replace") for i in bad]
    malformed = zip((bad + 1).tolist(), reasons[bad].tolist(), texts, strict=True)
    return Parsed(frame, np.flatnonzero(good) + 1, list(malformed))


def parse_csv(raw: bytes, path: Path) -> Parsed:
    """Parses a CSV table, where quoted values may have commas, line ends and quotes.

    Where the quotes of a line do not match, only that line is malformed, and parsing
    continues with the next line.

    Args:
      raw: the file, in UTF-8.
      path: for messages.

    Raises:
      UserError: the header is missing, or names a column twice.
    """
    if b'"' not in raw:  # much faster, and the same result
        return parse_lines(raw, ",", path)
    raw = _clean(raw, path)
    first, _, rest = raw.partition(b"\n")
    columns = _header(first, path, lambda line: next(csv.reader([line])))
    # Invalid bytes become surrogates, by which `_reason` finds them.
    lines = rest.decode("utf-8", "surrogateescape").split("\n")[:-1]
    good: list[list[str]] = []
    line_numbers: list[int] = []
    bad: list[tuple[int, str, str]] = []
    next_line = 0  # where the next row begins; two less than its number in the file
    while next_line < len(lines):
        start = next_line
        remaining = (lines[i] + "\n" for i in range(start, len(lines)))
        reader = csv.reader(remaining, strict=True)
        try:
            for row in reader:
                line, next_line = next_line, start + reader.line_num
                if not row:
                    continue  # a blank line
                if reason := _reason(row, len(columns)):
                    bad.append((line + 2, reason, _decode(lines[line:next_line])))
                else:
                    good.append(row)
                    line_numbers.append(line + 2)
        except csv.Error as e:
            # A quote that is never closed would swallow all remaining lines.
            text = _decode(lines[next_line : next_line + 1])
            bad.append((next_line + 2, f"quotes do not fit: {e}", text))
            next_line += 1
    schema = dict.fromkeys(columns, pl.String)
    frame = pl.DataFrame(good, schema=schema, orient="row")
    return Parsed(frame, np.array(line_numbers, np.int64), bad)


def _clean(raw: bytes, path: Path) -> bytes:
    """Removes a byte order mark and ends every line with LF."""
    if not raw.strip():
        raise UserError(f"{path}: empty; it needs a header and rows")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is in UTF-16; save it as UTF-8")
    raw = raw.removeprefix(b"\xef\xbb\xbf")  # byte order mark of UTF-8
    if b"\r\n" in raw:
        raw = raw.replace(b"\r\n", b"\n")
    return raw if raw.endswith(b"\n") else raw + b"\n"


def _header(line: bytes, path: Path, split: Callable[[str], list[str]]) -> list[str]:
    """Column names of the first line."""
    try:
        columns = split(line.decode("utf-8"))
    except (UnicodeDecodeError, csv.Error, StopIteration):
        raise UserError(
            f"{path}: row 1: the header cannot be read; save it as UTF-8"
        ) from None
    if twice := {c for c in columns if columns.count(c) > 1}:
        raise UserError(
            f"{path}: row 1: column {min(twice)!r} appears twice; rename one"
        )
    if not all(columns) or "\0" in line.decode("utf-8"):
        raise UserError(f"{path}: row 1: a column without a name; name all columns")
    return columns


def _undecodable(
    raw: bytes, bytes_: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> list[int]:
    """Indices of lines that are not UTF-8; checks only lines with non-ASCII bytes."""
    (high,) = np.nonzero(bytes_ >= 128)
    found = []
    for line in np.unique(np.searchsorted(ends, high)):
        try:
            raw[starts[line] : ends[line]].decode("utf-8")
        except UnicodeDecodeError:
            found.append(int(line))
    return found


def _frame_of_lines(body: bytes, separator: str, columns: list[str]) -> pl.DataFrame:
    """Data frame of well-formed lines, without the header."""
    if not body:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return pl.read_csv(
        io.BytesIO(body),
        has_header=False,
        new_columns=columns,
        separator=separator,
        quote_char=None,
        infer_schema=False,  # ids like "007" stay strings
        empty_string_is_null=False,
    )


def _decode(lines: list[str]) -> str:
    """Lines as printable text, with a replacement character for invalid bytes."""
    text = "\n".join(lines)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _reason(row: list[str], num_columns: int) -> str:
    """Why a row is malformed; "" where it is well-formed."""
    text = "".join(row)
    if len(row) != num_columns:
        return f"{len(row)} columns, not {num_columns}"
    if "\0" in text:
        return "a NUL byte"
    if any("\udc80" <= c <= "\udcff" for c in text):
        return "not UTF-8"
    return ""
