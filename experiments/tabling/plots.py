"""Plots the rows of a table: quality with intervals, and quality against cost."""

import itertools
import textwrap
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.tabling.table import PUBLISHED, Row
from recjax.common.errors import UserError

# Okabe and Ito, 2008: distinguishable with colour blindness.
OKABE_ITO = ("#0072B2", "#D55E00", "#56B4E9", "#009E73", "#E69F00")
GRAY = "#555555"
COLORS = {
    "variant": OKABE_ITO[0],
    "published": OKABE_ITO[1],
    "seed": OKABE_ITO[2],
    "baseline": GRAY,
}
NOTE_WIDTH = 200  # characters of a line
# Candidate positions of a variant's label, nearest first: distance in typographic
# points, and angle in degrees.
LABEL_DISTANCES = (8, 16, 26, 38, 52, 68, 86)
LABEL_ANGLES = (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240)
LABEL_WIDTH = 32  # characters of a line; longer labels would squeeze the panels
EDGE = 1.3  # published values above this multiple of our best are drawn at the edge


class Axis(NamedTuple):
    """A cost that quality is plotted against: a column of variants and its label."""

    column: str
    label: str


AXES = {
    "seconds": Axis("train s", "seconds of training and validation"),
    "params": Axis("trained", "trained parameters"),
}


def check_plots() -> None:
    """Raises UserError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError("matplotlib is missing; run pip install -e '.[experiments]'")


def plot(
    path: Path,
    rows: Sequence[Row],
    metrics: Sequence[str],
    *,
    reference: str,
    x: str = "seconds",
    title: str = "",
) -> None:
    """Draws the metrics of every row, and the last metric against a cost.

    Args:
      path: the PNG to write, 1500 pixels wide.
      rows: rows of the table, drawn from top to bottom.
      metrics: one or two, with a panel each; rows without any of them are omitted.
      reference: label of the row whose mean is marked by a dotted line.
      x: a key of `AXES`.
      title: title of the figure.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # titles and names may contain $
    from matplotlib import pyplot as plt

    shown = [row for row in rows if row.values.keys() & {*metrics} and not row.data]
    variants = [row for row in shown if row.kind == "variant"]
    height, ratios = max(1.8 + 0.34 * len(shown), 4), [2] * len(metrics) + [3]
    figure, (*lefts, right) = plt.subplots(
        1, len(ratios), figsize=(15, height), width_ratios=ratios, layout="constrained"
    )
    if title:
        figure.suptitle(title)
    reference_row = next((row for row in shown if row.label == reference), None)
    note_text = note(rows, metrics)
    add_legend(figure, {row.kind for row in shown}, reference_row, note_text)
    for axes, metric in zip(lefts, metrics, strict=True):
        draw_rows(axes, shown, metric, reference)
    for axes in lefts[1:]:
        axes.set_yticklabels([])
    last = metrics[-1]
    draw_costs(right, variants, last, AXES[x])
    for axes in (*lefts, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()  # lays out the axes, for `label`
    figure.set_layout_engine("none")
    costs = [row.cost[AXES[x].column] for row in variants]
    means = [mean_over_seeds(row, last) for row in variants]
    label(right, costs, means, [row.name for row in variants])
    figure.savefig(path, dpi=100)
    plt.close(figure)


def note(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Lists the published values of other data sets, which no panel shows."""
    values = [
        f"{row.label.removesuffix(PUBLISHED)}: "
        + ", ".join(f"{m} {mean_over_seeds(row, m):.4f}" for m in shown)
        + f" ({row.source})"
        for row in rows
        if row.data and (shown := [m for m in metrics if m in row.values])
    ]
    text = f"Published on other data, not comparable: {'; '.join(values)}"
    return textwrap.fill(text, NOTE_WIDTH) if values else ""


def add_legend(
    figure: Any, kinds: Collection[str], reference: Row | None, note_text: str
) -> None:
    """Explains the markers and the dotted line below the panels, under a note."""
    from matplotlib.lines import Line2D

    entries: list[tuple[str, str, dict[str, Any]]] = [
        ("variant", "variant, 95% interval", {"marker": "D", "ls": "-"}),
        ("seed", "seed", {"marker": "o", "ls": ""}),
        ("baseline", "(baseline), not trained", {"marker": "D", "ls": "-"}),
        ("published", "published", {"marker": "|", "ls": "", "ms": 14, "mew": 2.5}),
    ]
    handles = []
    for kind, text, style in entries:
        if kind in {"variant", "seed", *kinds}:
            color = COLORS[kind]
            handle = Line2D([], [], label=text)
            handle.set(color=color, **style)
            handles.append(handle)
    if reference is not None:
        line = Line2D([], [], label=f"mean of {reference.label}", ls=":", lw=1)
        line.set(color=COLORS[reference.kind])
        handles.append(line)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        title=note_text or None,
        title_fontsize=8,
    )


def mean_over_seeds(row: Row, metric: str) -> float:
    """Returns the mean of a metric over the seeds."""
    return float(np.mean(row.values[metric]))


def draw_rows(axes: Any, rows: Sequence[Row], metric: str, reference: str) -> None:
    """Draws the mean, the interval and the seeds of each row, from top to bottom.

    A published value far above ours is written as a number at the right edge, so that
    it does not squeeze the scale.
    """
    own = [row for row in rows if row.kind != "published" and metric in row.values]
    edge = EDGE * max(max(row.values[metric]) for row in own)
    for y, row in enumerate(rows):
        if metric not in row.values:
            continue
        color, values = COLORS[row.kind], row.values[metric]
        mean = mean_over_seeds(row, metric)
        if row.label == reference:
            axes.axvline(mean, color=color, lw=1, ls=":", zorder=0)
        if metric in row.intervals:
            axes.plot(row.intervals[metric], [y, y], color=color, lw=1.5)
        if row.kind == "published" and mean > edge:
            axes.plot(edge, y, ">", color=color, ms=6)
            axes.text(edge, y, f"{mean:.4f} ", color=color, ha="right", va="center")
        elif row.kind == "published":
            axes.plot(mean, y, "|", color=color, ms=14, mew=2.5)
        else:
            axes.plot(mean, y, "D", color=color, ms=6)
        if len(values) > 1:  # drawn below the mean, so that each seed is visible
            axes.plot(values, [y + 0.25] * len(values), "o", color=COLORS["seed"], ms=4)
    axes.set_yticks(
        range(len(rows)), [textwrap.fill(row.label, LABEL_WIDTH) for row in rows]
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"test {metric}")
    axes.grid(axis="x", alpha=0.3)


def draw_costs(axes: Any, rows: Sequence[Row], metric: str, axis: Axis) -> None:
    """Plots quality against cost; on a log axis if costs differ by more than 4x."""
    from matplotlib import ticker

    costs, color = [row.cost[axis.column] for row in rows], COLORS["variant"]
    for cost, row in zip(costs, rows, strict=True):
        if metric in row.intervals:
            axes.plot([cost, cost], row.intervals[metric], color=color, lw=1, alpha=0.3)
    axes.plot(
        costs, [mean_over_seeds(row, metric) for row in rows], "D", color=color, ms=6
    )
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
    """Writes a name next to each marker, at the nearest free position.

    A name without a free position is drawn over the others. The axes must have been
    laid out, because positions are compared in pixels.

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
        for far, angle in itertools.product(LABEL_DISTANCES, np.radians(LABEL_ANGLES)):
            text = axes.annotate(
                names[i],
                (x[i], y[i]),
                xytext=(far * np.cos(angle), far * np.sin(angle)),
                textcoords="offset points",
                fontsize=8,
                bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
                ha=("center", "left", "right")[round(np.cos(angle))],
                va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#999999"},
            )
            text.arrow_patch.set_visible(far > LABEL_DISTANCES[0])
            text.update_positions(renderer)
            # The box of the text alone: its connecting line may cross other labels.
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
