"""Bytes of a table -> columns of strings; rows that are none, with the reason."""

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
    """What a file holds.

    Attributes:
      frame: rows that have the header's columns, all as strings, empty ones as "".
      rows: of these, where each stands in the file; its first line is row 1.
      bad: (row, reason, text) of every other row.
    """

    frame: pl.DataFrame
    rows: np.ndarray
    bad: list[tuple[int, str, str]] = field(default_factory=list)


def parse_lines(raw: bytes, separator: str, path: Path) -> Parsed:
    """A table without quoting: one row a line, blank lines are none.

    Args:
      raw: the file, in UTF-8; line ends are LF or CRLF.
      separator: one byte.
      path: for messages.

    Raises:
      UserError: no header, or one that names a column twice.
    """
    raw = _clean(raw, path)
    bytes_ = np.frombuffer(raw, np.uint8)
    (ends,) = np.nonzero(bytes_ == NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    columns = _header(raw[: ends[0]], path, lambda line: line.split(separator))

    def count(value: int) -> np.ndarray:
        (places,) = np.nonzero(bytes_ == value)
        return np.searchsorted(places, ends) - np.searchsorted(places, starts)

    separators = count(ord(separator))
    reasons = np.full(len(ends), "", object)
    wrong = separators != len(columns) - 1
    reasons[wrong] = [f"{n + 1} columns, not {len(columns)}" for n in separators[wrong]]
    reasons[count(RETURN) > 0] = "a carriage return inside"
    reasons[count(NUL) > 0] = "a NUL byte"
    for line in _undecodable(raw, bytes_, starts, ends):
        reasons[line] = "not UTF-8"
    present = ends > starts  # blank lines are no rows
    present[0] = False
    good = present & (reasons == "")
    (bad,) = np.nonzero(present & ~good)
    body = bytes_[np.repeat(good, np.diff(np.append(starts, len(raw))))].tobytes()
    frame = _frame_of_lines(body, separator, columns)
    if len(frame) != good.sum():
        raise UserError(f"{path}: {len(frame)} of {good.sum()} rows could be read")
    texts = [raw[starts[i] : ends[i]].decode("utf-8", "replace") for i in bad]
    each = zip((bad + 1).tolist(), reasons[bad].tolist(), texts, strict=True)
    return Parsed(frame, np.flatnonzero(good) + 1, list(each))


def parse_csv(raw: bytes, path: Path) -> Parsed:
    """A table with commas, where quotes may hold commas, line ends and quotes.

    Where quotes do not fit, one line is bad and the next one begins a row.

    Args:
      raw: the file, in UTF-8.
      path: for messages.

    Raises:
      UserError: no header, or one that names a column twice.
    """
    if b'"' not in raw:
        return parse_lines(raw, ",", path)
    raw = _clean(raw, path)
    first, _, rest = raw.partition(b"\n")
    columns = _header(first, path, lambda line: next(csv.reader([line])))
    lines = rest.decode("utf-8", "surrogateescape").split("\n")[:-1]
    good: list[list[str]] = []
    rows: list[int] = []
    bad: list[tuple[int, str, str]] = []
    at = 0  # line that the next row begins with
    while at < len(lines):
        start = at
        rest_of_it = (lines[i] + "\n" for i in range(start, len(lines)))
        reader = csv.reader(rest_of_it, strict=True)
        try:
            for row in reader:
                here, at = at, start + reader.line_num
                if not row:
                    continue  # a blank line
                if reason := _reason(row, len(columns)):
                    bad.append((here + 2, reason, _shown(lines[here:at])))
                else:
                    good.append(row)
                    rows.append(here + 2)
        except csv.Error as e:  # a quote that is never closed would take all the rest
            bad.append((at + 2, f"quotes do not fit: {e}", _shown(lines[at : at + 1])))
            at += 1
    schema = dict.fromkeys(columns, pl.String)
    frame = pl.DataFrame(good, schema=schema, orient="row")
    return Parsed(frame, np.array(rows, np.int64), bad)


def _clean(raw: bytes, path: Path) -> bytes:
    """Without byte order mark, with LF at every line's end."""
    if not raw.strip():
        raise UserError(f"{path}: empty")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is in UTF-16; save it as UTF-8")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\r\n" in raw:
        raw = raw.replace(b"\r\n", b"\n")
    return raw if raw.endswith(b"\n") else raw + b"\n"


def _header(line: bytes, path: Path, split: Callable[[str], list[str]]) -> list[str]:
    try:
        columns = split(line.decode("utf-8"))
    except (UnicodeDecodeError, csv.Error, StopIteration):
        raise UserError(f"{path}: row 1: its header cannot be read") from None
    if twice := {c for c in columns if columns.count(c) > 1}:
        raise UserError(f"{path}: row 1: column {min(twice)!r} stands there twice")
    if not all(columns) or "\0" in line.decode("utf-8"):
        raise UserError(f"{path}: row 1: a column without a name")
    return columns


def _undecodable(
    raw: bytes, bytes_: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> list[int]:
    """Lines that are not UTF-8; only those with bytes beyond ASCII are looked at."""
    (high,) = np.nonzero(bytes_ >= 128)
    found = []
    for line in np.unique(np.searchsorted(ends, high)):
        try:
            raw[starts[line] : ends[line]].decode("utf-8")
        except UnicodeDecodeError:
            found.append(int(line))
    return found


def _frame_of_lines(body: bytes, separator: str, columns: list[str]) -> pl.DataFrame:
    if not body:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return pl.read_csv(
        io.BytesIO(body),
        has_header=False,
        new_columns=columns,
        separator=separator,
        quote_char=None,
        infer_schema=False,
        empty_string_is_null=False,
    )


def _shown(lines: list[str]) -> str:
    text = "\n".join(lines)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _reason(row: list[str], num_columns: int) -> str:
    """What is wrong with a row of strings; "" for nothing."""
    text = "".join(row)
    if len(row) != num_columns:
        return f"{len(row)} columns, not {num_columns}"
    if "\0" in text:
        return "a NUL byte"
    if any("\udc80" <= c <= "\udcff" for c in text):
        return "not UTF-8"
    return ""
