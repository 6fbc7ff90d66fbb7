"""Formats tables as Markdown and CSV."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recjax.common.errors import UserError

PARTS = ("", " sd", " low", " high", " seeds")  # columns of each metric
COMPARISON = ("difference", "difference seeds", "p")
TABLE_FILES = ("table.md", "table.csv", "plot.png")
RANKS = "ranks"  # column of table.csv with digests, each as `seed:digest`
PUBLISHED = " (published)"  # ends the labels of published rows
ON = ", on "  # precedes the data set of a published row


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
      kind: a trained variant, a baseline (nothing was trained), or published.
      values: for each metric the mean over the test examples, one per seed.
      intervals: for each metric the 95% interval over users of the mean over seeds.
      cost: the other columns; variants only.
      difference: from the reference; None for the reference itself.
      by_seed: the difference for each seed that both have.
      p: p-value of the difference, corrected for the number of tests.
      ranks: digest of the test ranks by seed; variants only.
      source: origin of a published row.
      data: data set of a published row, if it is not that of the table.
      note: remark on a published row.
    """

    name: str
    kind: Literal["baseline", "variant", "published"]
    values: dict[str, list[float]]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    difference: float | None = None
    by_seed: list[float] = field(default_factory=list)
    p: float | None = None
    ranks: dict[int, str] = field(default_factory=dict)
    source: str = ""
    data: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        """The name as shown in tables and plots."""
        if self.kind == "published":
            return self.name + (self.data and ON + self.data) + PUBLISHED
        return f"({self.name})" if self.kind == "baseline" else self.name


def markdown(rows: Sequence[Row], metrics: Sequence[str], difference: str) -> str:
    """Returns the Markdown table.

    Args:
      rows: rows of the table, at least one of them a variant.
      metrics: columns.
      difference: heading of the column of differences.
    """
    costs = cost_columns(rows)
    head = ["variant", *metrics, difference, "p", *costs]
    lines = [markdown_line(head), "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        shown = [metric_cell(row, m) for m in metrics]
        shown.append(difference_cell(row))
        shown.append("" if row.p is None else f"{row.p:.4f}")
        shown += [cost_cell(c, row.cost[c]) if row.cost else "" for c in costs]
        name = ", ".join(filter(None, [row.label, row.source]))
        lines.append(
            markdown_line([f"{name}; {row.note}" if row.note else name, *shown])
        )
    return "\n".join(lines)


def markdown_line(cells: Sequence[str]) -> str:
    """Returns one line of a Markdown table."""
    plain = [" ".join(x.split()).replace("|", r"\|") for x in cells]
    return "| " + " | ".join(plain) + " |"


def cost_columns(rows: Sequence[Row]) -> list[str]:
    """Returns the columns that only variants have, such as epochs and seconds."""
    return next(list(row.cost) for row in rows if row.cost)


def metric_cell(row: Row, metric: str) -> str:
    """Returns mean, standard deviation and interval of a metric."""
    if not (values := row.values.get(metric)):
        return ""
    mean = float(np.mean(values))
    # Four decimals, except for values that these would round to zero.
    text = f"{mean:.4f}" if mean == 0 or mean >= 5e-5 else f"{mean:.1e}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.4f}"
    if metric in row.intervals:
        text += " [{:.4f}, {:.4f}]".format(*row.intervals[metric])
    return text


def difference_cell(row: Row) -> str:
    """Returns the difference and, with several seeds, how many have the same sign."""
    if row.difference is None:
        return ""
    same_sign = sum(value * row.difference > 0 for value in row.by_seed)
    seeds = f" ({same_sign}/{len(row.by_seed)})" if len(row.by_seed) > 1 else ""
    return f"{row.difference:+.4f}{seeds if row.difference else ''}"


def cost_cell(column: str, value: float) -> str:
    """Formats a number of a cost column."""
    if column.startswith("valid"):
        return f"{value:.4f}"
    return f"{value:,.1f}".removesuffix(".0") if column == "epochs" else f"{value:,.0f}"


def write_csv(path: Path, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """Writes the numbers of the table, including those of every seed."""
    costs = cost_columns(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        head = [metric + part for metric in metrics for part in PARTS]
        out.writerow(["name", *head, *COMPARISON, RANKS, *costs, "source", "note"])
        for row in rows:
            cells: list[Any] = [row.label]
            for m in metrics:
                values = row.values.get(m, [])
                cells.append(f"{np.mean(values):.6f}" if values else "")
                several = len(values) > 1
                cells.append(f"{np.std(values, ddof=1):.6f}" if several else "")
                cells += [f"{x:.6f}" for x in row.intervals.get(m, ())] or ["", ""]
                cells.append(" ".join(f"{x:.6f}" for x in values))
            cells.append("" if row.difference is None else f"{row.difference:.6f}")
            cells.append(" ".join(f"{x:.6f}" for x in row.by_seed))
            cells.append("" if row.p is None else f"{row.p:.6f}")
            cells.append(" ".join(f"{seed}:{x}" for seed, x in row.ranks.items()))
            cells += [row.cost.get(c, "") for c in costs]
            out.writerow([*cells, row.source, row.note])


def read_csv(path: Path, metrics: Sequence[str]) -> list[Row]:
    """Reads the rows of a table.csv, as far as plots need them.

    Raises:
      UserError: the file cannot be read, or `write_csv` did not write it.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_read_row(cells, metrics) for cells in csv.DictReader(file)]
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    except (ValueError, KeyError, AttributeError, TypeError, csv.Error):
        raise UserError(f"{path}: damaged, or not written by this program") from None


def _read_row(cells: Mapping[str, str], metrics: Sequence[str]) -> Row:
    values = {m: [float(x) for x in cells[f"{m} seeds"].split()] for m in metrics}
    intervals = {
        m: (float(cells[f"{m} low"]), float(cells[f"{m} high"]))
        for m in metrics
        if cells[f"{m} low"]
    }
    label = cells["name"]
    values = {m: by_seed for m, by_seed in values.items() if by_seed}
    if cells["source"]:
        name, _, data = label.removesuffix(PUBLISHED).partition(ON)
        return Row(name, "published", values, source=cells["source"], data=data)
    if not cells["seeds"]:
        return Row(label[1:-1], "baseline", values, intervals)
    # The costs are the columns between the comparison and the source.
    columns = list(cells)[list(cells).index("p") + 1 : list(cells).index("source")]
    cost = {column: float(cells[column]) for column in columns if column != RANKS}
    return Row(label, "variant", values, intervals, cost)
