"""Plots of a table's rows."""

import itertools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.tabling.table import Row
from recjax.common.errors import UserError

# Okabe and Ito, 2008: told apart by the colour-blind.
OKABE_ITO = ("#0072B2", "#D55E00", "#56B4E9", "#009E73", "#E69F00")
GRAYED = "#555555"
COLORS = {"point": OKABE_ITO[0], "baseline": GRAYED, "published": OKABE_ITO[1]}
SEED = OKABE_ITO[2]
# Where a point's name may stand: points of distance and degrees, in order.
FAR = (8, 16, 26, 38, 52, 68, 86)
ROOM = 1.3  # what is published and above so many times our best is at the edge
ANGLES = (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240)


class Axis(NamedTuple):
    """What quality can be shown against: a column of points, and its name."""

    column: str
    label: str


AXES = {
    "seconds": Axis("train s", "seconds of training and validation"),
    "params": Axis("trained", "trained parameters"),
}


def check_plots() -> None:
    """Raises UserError where there is nothing to draw with."""
    if find_spec("matplotlib") is None:
        raise UserError("needs matplotlib: pip install -e '.[experiments]'")


def plot(
    path: Path,
    rows: Sequence[Row],
    metrics: Sequence[str],
    *,
    reference: str,
    x: str = "seconds",
    title: str = "",
) -> None:
    """Every row's metrics with intervals and seeds; beside it, the last against a cost.

    Args:
      path: of a PNG, 1500 pixels wide.
      rows: of the table, in its order.
      metrics: one or two, a panel each; rows without any are not shown.
      reference: label of the row at whose mean there is a line.
      x: of `AXES`.
      title: of the whole.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # of titles and names with $
    from matplotlib import pyplot as plt

    shown = [row for row in rows if row.values.keys() & {*metrics}]
    points = [row for row in shown if row.kind == "point"]
    height, ratios = max(1.4 + 0.34 * len(shown), 4), [2] * len(metrics) + [3]
    figure, (*lefts, right) = plt.subplots(
        1, len(ratios), figsize=(15, height), width_ratios=ratios, layout="constrained"
    )
    if title:
        figure.suptitle(title)
    for axes, metric in zip(lefts, metrics, strict=True):
        draw_rows(axes, shown, metric, reference)
    for axes in lefts[1:]:
        axes.set_yticklabels([])
    last = metrics[-1]
    draw_costs(right, points, last, AXES[x])
    for axes in (*lefts, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()  # places the axes
    figure.set_layout_engine("none")
    costs = [row.cost[AXES[x].column] for row in points]
    label(right, costs, [middle(row, last) for row in points], [r.name for r in points])
    figure.savefig(path, dpi=100)
    plt.close(figure)


def middle(row: Row, metric: str) -> float:
    """The mean over the seeds."""
    return float(np.mean(row.values[metric]))


def draw_rows(axes: Any, rows: Sequence[Row], metric: str, reference: str) -> None:
    """Means, intervals and seeds, a row below the other.

    A published figure far above ours stands as a number at the edge.
    """
    own = [row for row in rows if row.kind != "published" and metric in row.values]
    edge = ROOM * max(max(row.values[metric]) for row in own)
    for place, row in enumerate(rows):
        if metric not in row.values:
            continue
        color = COLORS[row.kind]
        if row.label == reference:
            axes.axvline(middle(row, metric), color=color, lw=1, ls=":", zorder=0)
        if metric in row.intervals:
            axes.plot(row.intervals[metric], [place, place], color=color, lw=1.5)
        if row.kind == "published" and middle(row, metric) > edge:
            number = f"{middle(row, metric):.4f} "
            axes.plot(edge, place, ">", color=color, ms=6)
            axes.text(edge, place, number, color=color, ha="right", va="center")
        elif row.kind == "published":
            axes.plot(middle(row, metric), place, "|", color=color, ms=14, mew=2.5)
        else:
            axes.plot(middle(row, metric), place, "D", color=color, ms=6)
        if len(values := row.values[metric]) > 1:  # below, so that each can be seen
            axes.plot(values, [place + 0.25] * len(values), "o", color=SEED, ms=4)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"test {metric}")
    axes.set_title("means, 95% intervals, seeds", fontsize=10)
    axes.grid(axis="x", alpha=0.3)


def draw_costs(axes: Any, rows: Sequence[Row], metric: str, axis: Axis) -> None:
    """A point for each row; a log axis where the costs differ much, else from 0."""
    from matplotlib import ticker

    costs, color = [row.cost[axis.column] for row in rows], COLORS["point"]
    for cost, row in zip(costs, rows, strict=True):
        if metric in row.intervals:
            axes.plot([cost, cost], row.intervals[metric], color=color, lw=1, alpha=0.3)
    axes.plot(costs, [middle(row, metric) for row in rows], "D", color=color, ms=6)
    axes.margins(x=0.15, y=0.12)
    if 0 < 4 * min(costs) < max(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.set_xlim(left=0, right=1.15 * max(costs))
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    thousands = ticker.EngFormatter(sep="")  # below 1 it writes 600m

    def shown(x: float, _: int) -> str:
        return thousands(x) if x >= 1000 else f"{x:g}"

    axes.xaxis.set_major_formatter(ticker.FuncFormatter(shown))
    axes.set_xlabel(axis.label)
    axes.set_ylabel(f"test {metric}")
    axes.set_title("quality and its cost", fontsize=10)
    axes.grid(alpha=0.3)


def label(
    axes: Any, x: Sequence[float], y: Sequence[float], names: Sequence[str]
) -> list[Any]:
    """Names beside points, each at the nearest place that is free.

    Where none is, the name stands over others. The axes must have their place.

    Returns:
      The texts.
    """
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    at_Px2 = axes.transData.transform(np.stack([x, y], axis=1))
    taken = [Bbox.from_extents(*(p - 8), *(p + 8)) for p in at_Px2]
    inside, texts = axes.get_window_extent(renderer), []
    for i in np.argsort(-at_Px2[:, 1], kind="stable"):
        for far, angle in itertools.product(FAR, np.radians(ANGLES)):
            text = axes.annotate(
                names[i],
                (x[i], y[i]),
                xytext=(far * np.cos(angle), far * np.sin(angle)),
                textcoords="offset points",
                fontsize=8,
                ha=("center", "left", "right")[round(np.cos(angle))],
                va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#999999"},
            )
            text.arrow_patch.set_visible(far > FAR[0])
            text.update_positions(renderer)
            # Of the words alone: their line may pass where it will.
            box = Text.get_window_extent(text, renderer)
            within = inside.contains(*box.min) and inside.contains(*box.max)
            if within and not any(box.padded(1).overlaps(other) for other in taken):
                break
            text.remove()
        else:
            text = axes.annotate(names[i], (x[i], y[i]), fontsize=8)
            box = Text.get_window_extent(text, renderer)
        taken.append(box)
        texts.append(text)
    return texts
