"""Files that are there whole or not at all."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

TABLE_FILES = ("table.md", "table.csv", "plot.png")

RANKS = "ranks"  # the CSV's column of digests, each as `seed:digest`


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
      kind: what was not trained is a baseline.
      values: by metric, the mean over the test rows for each seed.
      intervals: by metric, 95% over users of the means of the seeds.
      cost: other columns, of points.
      difference: from the reference, where this is another point.
      by_seed: that difference, for each seed that both have.
      p: of that difference, corrected for the number of tests.
      ranks: by seed, the digest of the test ranks, of trained points.
      source: of a published row.
      note: on a published row.
    """

    name: str
    kind: Literal["baseline", "point", "published"]
    values: dict[str, list[float]]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    difference: float | None = None
    by_seed: list[float] = field(default_factory=list)
    p: float | None = None
    ranks: dict[int, str] = field(default_factory=dict)
    source: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        """The name as it is shown."""
        if self.kind == "point":
            return self.name
        return {"baseline": "({})", "published": "{} (published)"}[self.kind].format(
            self.name
        )


def markdown(rows: Sequence[Row], metrics: Sequence[str], difference: str) -> str:
    """The rows; `difference` heads that column."""
    costs = costs_of(rows)
    head = ["", *metrics, difference, "p", *costs]
    lines = [line(head), "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        shown = [cell(row, m) for m in metrics]
        shown.append(difference_cell(row))
        shown.append("" if row.p is None else f"{row.p:.4f}")
        shown += [number(c, row.cost[c]) if row.cost else "" for c in costs]
        name = ", ".join(filter(None, [row.label, row.source]))
        lines.append(line([f"{name}; {row.note}" if row.note else name, *shown]))
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    """A line of markdown's."""
    plain = [" ".join(x.split()).replace("|", r"\|") for x in cells]
    return "| " + " | ".join(plain) + " |"


def costs_of(rows: Sequence[Row]) -> list[str]:
    """Names of the columns that only points have."""
    return next(list(row.cost) for row in rows if row.cost)


def cell(row: Row, metric: str) -> str:
    """Mean, deviation and interval."""
    if not (values := row.values.get(metric)):
        return ""
    mean = float(np.mean(values))
    # Four decimals, but not of what they make nothing of.
    text = f"{mean:.4f}" if mean == 0 or mean >= 5e-5 else f"{mean:.1e}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.4f}"
    if metric in row.intervals:
        text += " [{:.4f}, {:.4f}]".format(*row.intervals[metric])
    return text


def difference_cell(row: Row) -> str:
    """The difference, and in how many of several seeds it has this sign."""
    if row.difference is None:
        return ""
    alike = sum(x * row.difference > 0 for x in row.by_seed)
    seeds = f" ({alike}/{len(row.by_seed)})" if len(row.by_seed) > 1 else ""
    return f"{row.difference:+.4f}{seeds if row.difference else ''}"


def number(column: str, value: float) -> str:
    """A number of a cost column."""
    if column.startswith("valid"):
        return f"{value:.4f}"
    return f"{value:,.1f}".removesuffix(".0") if column == "epochs" else f"{value:,.0f}"


def write_csv(path: Path, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """The table's numbers, every seed's too."""
    costs, parts = costs_of(rows), ("", " sd", " low", " high", " seeds")
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        head = [m + part for m in metrics for part in parts]
        more = ["difference", "difference seeds", "p", RANKS, *costs, "source", "note"]
        out.writerow(["name", *head, *more])
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
