"""What the protocols' table, CSV and plot look like."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.plots import GRAYED, OKABE_ITO
from experiments.table import line

METRICS = ("hr@10", "ndcg@10")
TRAINED = "trained"


class Protocol(NamedTuple):
    """What a test is.

    Attributes:
      trained, asked: order of equal times in training, and in what is asked.
      masked: whether seen items are no candidates.
      candidates: drawn for each target; 0 = all.
    """

    trained: str
    asked: str
    masked: bool
    candidates: int

    def cells(self) -> list[str]:
        """In the table."""
        other = "" if self.asked == self.trained else ", other"
        seen = "masked" if self.masked else "not masked"
        drawn = f"{self.candidates} drawn" if self.candidates else "all"
        return [self.trained, self.asked + other, seen, drawn]


# Means by protocol, seed, system and metric.
Found = dict[Protocol, dict[int, dict[str, dict[str, float]]]]


def names(found: Found) -> list[str]:
    """The systems."""
    return list(next(iter(next(iter(found.values())).values())))


def page(found: Found, changed: tuple[float, float]) -> str:
    """The table, and what it is.

    Args:
      found: what was measured.
      changed: shares of test targets that differ between the orders, and of those of
        the drawn order that the file's training has.
    """
    head = ["trained on", "asked in order", "seen items", "candidates", *names(found)]
    lines = [line(head), "|---|---|---|---|" + "---:|" * len(names(found))]
    for protocol, seeds in found.items():
        cells = protocol.cells()
        for name in names(found):
            each = [spread([x[name][m] for x in seeds.values()]) for m in METRICS]
            cells.append(" / ".join(each))
        lines.append(line(cells))
    shown = ", ".join(map(str, next(iter(found.values()))))
    text = (
        f"Test {' / '.join(METRICS)}: means and, where seeds differ, standard "
        f"deviations over seeds {shown}. Orders are of events of one time: that of "
        f"the file, or drawn anew. {changed[0]:.1%} of the test targets differ between "
        f"the two; {changed[1]:.1%} of those of the drawn order are training events of "
        "the file's, which is what *other* says: a state asked in an order that it was "
        "not trained on."
    )
    title = "# MovieLens 100K: the same states under several protocols"
    return "\n".join([title, "", *lines, "", text])


def spread(values: Sequence[float]) -> str:
    """Mean and deviation over seeds."""
    more = f" ± {np.std(values, ddof=1):.4f}" if len(set(values)) > 1 else ""
    return f"{np.mean(values):.4f}{more}"


def write_csv(path: Path, found: Found) -> None:
    """Every seed's figures."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*Protocol._fields, "name", "seed", *METRICS])
        for protocol, seeds in found.items():
            for seed, systems in seeds.items():
                for name, values in systems.items():
                    figures = [f"{values[m]:.6f}" for m in METRICS]
                    out.writerow([*protocol, name, seed, *figures])


def plot(path: Path, found: Found) -> None:
    """HR by protocol, all items and drawn ones on scales of their own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    colors = dict(zip(names(found), (GRAYED, *OKABE_ITO), strict=False))
    for side, drawn in zip(axes, (False, True), strict=True):
        shown = {p: x for p, x in found.items() if bool(p.candidates) == drawn}
        for name, color in colors.items():
            means = [mean_of(seeds, name) for seeds in shown.values()]
            side.plot(means, range(len(shown)), "D", color=color, label=name)
        cells = [protocol.cells() for protocol in shown]
        labels = [f"{trained} / {asked}, {seen}" for trained, asked, seen, _ in cells]
        side.set_yticks(range(len(shown)), labels)
        side.invert_yaxis()
        side.set_xlabel(f"test {METRICS[0]}")
        side.locator_params(axis="x", nbins=6)
        side.set_title(f"candidates: {cells[0][-1]}")
        side.grid(alpha=0.3)
        side.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle("MovieLens 100K: order of equal times in training / in the test")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def mean_of(seeds: Mapping[int, dict[str, dict[str, float]]], name: str) -> float:
    """The first metric of a system, over seeds."""
    return float(np.mean([x[name][METRICS[0]] for x in seeds.values()]))
