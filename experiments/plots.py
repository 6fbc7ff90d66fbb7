"""Plots of a table's rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from experiments.collect import Row

OURS, SEED, OTHER = "#0072B2", "#56B4E9", "#D55E00"  # Okabe and Ito, 2008


def plot(path: Path, rows: "Sequence[Row]", metrics: Sequence[str]) -> None:
    """Every row's metric with its interval and seeds; beside it, against the time.

    Args:
      path: of a PNG.
      rows: of the table, in its order.
      metrics: the last one is shown.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    metric = metrics[-1]
    shown = [row for row in rows if metric in row.values]
    height = 1.4 + 0.34 * len(shown)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, max(height, 4)), width_ratios=(3, 2), layout="constrained"
    )
    for place, row in enumerate(shown):
        values, trained = row.values[metric], bool(row.cost)
        color = OURS if trained else "#555555" if row.intervals else OTHER
        if metric in row.intervals:
            left.plot(row.intervals[metric], [place, place], color=color, lw=1.5)
        marker = "D" if row.intervals else "|"
        left.plot(np.mean(values), place, marker, color=color, ms=6, mew=2)
        if len(values) > 1:  # below the line, so that each can be seen
            left.plot(values, [place + 0.25] * len(values), "o", color=SEED, ms=4)
    left.set_yticks(range(len(shown)), [row.name for row in shown])
    left.invert_yaxis()
    left.set_xlabel(f"test {metric}")
    left.set_title("means, 95% intervals over users, seeds", fontsize=10)
    left.grid(axis="x", alpha=0.3)

    timed = [row for row in shown if row.cost]
    seconds = [row.cost["train s"] for row in timed]
    means = [float(np.mean(row.values[metric])) for row in timed]
    right.plot(seconds, means, "D", color=OURS, ms=6)
    if max(seconds) > 4 * min(seconds):
        right.set_xscale("log")
    _label(right, seconds, means, [row.name for row in timed])
    right.set_xlabel("seconds of training and validation")
    right.set_ylabel(f"test {metric}")
    right.set_title("quality against time", fontsize=10)
    right.grid(alpha=0.3)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _label(
    axes: object, x: Sequence[float], y: Sequence[float], names: Sequence[str]
) -> None:
    """Names beside the points, moved apart upwards where they would touch."""
    span = (max(y) - min(y)) or 1.0
    axes.margins(x=0.45, y=0.1)  # type: ignore[attr-defined]
    last = -np.inf
    for i in np.argsort(y, kind="stable"):
        last = max(y[i], last + 0.045 * span)
        axes.annotate(  # type: ignore[attr-defined]
            names[i],
            (x[i], y[i]),
            xytext=(x[i] * 1.05, last),
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#999999"},
        )
