"""Reads published results from a CSV file."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.tabling.table import Row
from recjax.common.errors import UserError

METRIC = re.compile(r"[a-z]+@[1-9][0-9]*")
COLUMNS = ("name", "source", "data", "note")


def read_published(path: Path, metrics: Sequence[str]) -> list[Row]:
    """Reads a CSV with the columns name, source, metrics and optionally data and note.

    `data` names the data set of the values if it is not that of the table.

    Args:
      path: the file; the cells of its metrics are fractions or empty.
      metrics: the metrics to read; the others are ignored.

    Raises:
      UserError: the file is invalid; the message names the row (the header is row 1).
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            numbered = list(enumerate(csv.reader(file, strict=True), 1))
    except OSError as e:
        raise UserError(f"--published {path}: {e.strerror}") from None
    except (ValueError, csv.Error) as e:
        raise UserError(f"--published {path}: is not a CSV file ({e})") from None
    (_, head), *rows = [(i, row) for i, row in numbered if row] or [(1, [])]
    if missing := [x for x in ("name", "source") if x not in head]:
        raise UserError(f"--published {path}: has no column {missing[0]!r}")
    if len(set(head)) < len(head):
        raise UserError(f"--published {path}: two columns have the same name")
    for column in head:
        if column not in COLUMNS and not METRIC.fullmatch(column):
            raise UserError(
                f"--published {path}: column {column!r} is neither "
                f"{', '.join(COLUMNS)} nor a metric like hr@10"
            )
    if not set(head) & set(metrics):
        raise UserError(f"--published {path}: has none of {', '.join(metrics)}")
    if not rows:
        raise UserError(f"--published {path}: has no rows")
    return [
        _read_row(f"--published {path}: row {i}", head, row, metrics) for i, row in rows
    ]


def _read_row(
    where: str, head: Sequence[str], row: Sequence[str], metrics: Sequence[str]
) -> Row:
    if len(row) != len(head):
        raise UserError(f"{where}: {len(row)} cells under {len(head)} columns")
    cells = {column: x.strip() for column, x in zip(head, row, strict=True)}
    if not (cells["name"] and cells["source"]):
        raise UserError(f"{where}: needs a name and a source")
    values = {}
    for metric in metrics:
        if text := cells.get(metric):
            try:
                value = float(text)
            except ValueError:
                value = float("nan")
            if not 0 <= value <= 1:
                raise UserError(f"{where}, column {metric}: {text!r} is not a fraction")
            values[metric] = [value]
    data, note = cells.get("data", ""), cells.get("note", "")
    return Row(
        cells["name"],
        "published",
        values,
        source=cells["source"],
        data=data,
        note=note,
    )
