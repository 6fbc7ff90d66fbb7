"""Checks the ids, texts and numbers that a caller gives a model."""

import operator
from decimal import Decimal
from numbers import Real
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.common.text import shorten
from recjax.data.ingest.tables import BadRow, id_problem
from recjax.inference.frames import is_frame

MAX_SHOWN = 60  # characters of a bad value in a message
ID_TYPES = (pl.String, pl.Categorical, pl.Enum)  # of columns, besides integers
MAX_DIGITS = 38  # of a number that is an id, as in a decimal column
# Floats from here on do not hold every whole number.
EXACT, EXACT_FLOAT32 = 2**53, 2**24


def as_list(values: Any, name: str) -> list[Any]:
    """Returns ids or texts as a list; one of them may be given alone.

    Raises:
      UserError: not a list, or a table, of which it is not known which column is meant.
    """
    if isinstance(values, str):
        return [values]
    if is_frame(values):
        raise UserError(f"{name}: is a table; give one of its columns")
    try:
        iterator = iter(b"" if isinstance(values, bytes) else values)
    except TypeError:
        iterator = None
    if iterator is None or isinstance(values, bytes):
        raise UserError(f"{name}: {show(values)} is not a list")
    return list(iterator)


def id_list(values: Any, name: str) -> list[str]:
    """Returns ids as strings, see `as_list` and `id_text`."""
    return [id_text(value, name) for value in as_list(values, name)]


def id_text(value: Any, name: str, exact: int = EXACT) -> str:
    """Returns an id as a string; a whole float is that of the integer, as 242.0.

    Args:
      value: the id.
      name: the argument that has it, for the error.
      exact: floats from here on are no ids, as their last digits may be lost.

    Raises:
      UserError: neither a text nor a whole number, such as a missing value.
    """
    if isinstance(value, str):
        if is_unicode(value):
            return str(value)
    elif isinstance(value, UUID):
        return str(value)
    elif _is_whole(value, exact):
        return str(int(value))
    raise UserError(
        f"{name}: {show(value)} is not an id; ids are texts or whole numbers"
    )


def id_column(frame: pl.DataFrame, column: str, name: str) -> pl.Series:
    """Returns a column of ids as strings, checked as those of files are.

    Args:
      frame: a table.
      column: its column of ids.
      name: the argument that holds the table, for errors.

    Raises:
      UserError: there is no such column, or names the first row without an id.
    """
    if column not in frame.columns:
        known = ", ".join(frame.columns)
        raise UserError(f"{name}: no column {column!r}; there are {known}")
    values = frame[column]
    if values.dtype.is_integer() or values.dtype in ID_TYPES:
        ids = values.cast(pl.String)
    else:
        exact = EXACT_FLOAT32 if values.dtype == pl.Float32 else EXACT
        texts = [
            None
            if _is_missing(x)
            else id_text(x, f"{name}: row {row}: {column}", exact)
            for row, x in enumerate(values.to_list(), 1)
        ]
        ids = pl.Series(texts, dtype=pl.String)
    ids = ids.alias(column)
    problems = ids.to_frame().select(id_problem(column)).to_series()
    bad = problems.is_not_null().arg_true()
    if len(bad):
        row = int(bad[0])
        found = BadRow(row + 1, column, problems[row], ids[row] or "")
        raise UserError(f"{name}: {found.describe()}")
    return ids


def text_list(values: Any, name: str) -> list[str]:
    """Returns texts as a list, see `as_list`.

    Raises:
      UserError: one of them is no text.
    """
    texts = as_list(values, name)
    for text in texts:
        if not isinstance(text, str) or not is_unicode(text):
            raise UserError(f"{name}: {show(text)} is not a text")
    return texts


def at_least_one(value: Any, name: str) -> int:
    """Returns a whole number as Python's own.

    Raises:
      UserError: not a whole number, or below 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name}: {show(value)} is not a whole number") from None
    if number < 1:
        raise UserError(f"{name}: {number} is not at least 1")
    return number


def is_unicode(text: str) -> bool:
    """Returns whether a text can be written as UTF-8; a lone surrogate cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def show(value: Any) -> str:
    """Returns a value for a message, cut to a readable length."""
    try:
        return shorten(repr(value), MAX_SHOWN)
    except ValueError:  # an integer of thousands of digits
        return f"a value of type {type(value).__name__}"


def _is_whole(value: Any, exact: int) -> bool:
    """Returns whether a value is a whole number that is known exactly."""
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, Decimal):
        # Python's operators raise for the decimals that are refused here.
        is_short = value.is_finite() and value.adjusted() < MAX_DIGITS
        return is_short and value == value.to_integral_value()
    if not isinstance(value, Real):
        return False
    if isinstance(value, np.floating):
        exact = min(exact, 2 ** (np.finfo(type(value)).nmant + 1))
    limit = exact if isinstance(value, float | np.floating) else 10**MAX_DIGITS
    return bool(abs(value) < limit) and value % 1 == 0


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
