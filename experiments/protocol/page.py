"""What the protocols' table, CSV and plot look like."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.tabling.plots import GRAYED, OKABE_ITO
from experiments.tabling.statistics import FLIPS, holm, paired_randomisation
from experiments.tabling.table import line
from recjax.evaluation.metrics import MetricValues, with_intervals

METRICS = ("hr@10", "ndcg@10")
TESTED = METRICS[1]
TRAINED, COUNTED = "trained", "transitions"  # the two that are compared
RESAMPLES = 1000  # of the bootstrap


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
        other = "" if self.asked == self.trained else ", leaks"
        seen = "masked" if self.masked else "not masked"
        drawn = f"{self.candidates} drawn" if self.candidates else "all"
        return [self.trained, self.asked + other, seen, drawn]


# Of every test row, one of each user, by protocol, seed, system and metric.
Found = dict[Protocol, dict[int, dict[str, MetricValues]]]


def names(found: Found) -> list[str]:
    """The systems."""
    return list(next(iter(next(iter(found.values())).values())))


def by_seed(found: Found, protocol: Protocol, name: str, metric: str) -> np.ndarray:
    """values_SxR of a system, a row for each seed."""
    return np.stack([x[name][metric] for x in found[protocol].values()])


def page(found: Found, changed: tuple[float, float, float], made: str) -> str:
    """The table, and what it is.

    Args:
      found: what was measured.
      changed: shares of test targets that differ between the orders, of those of the
        drawn order that the file's training has, and the other way round.
      made: by which command, and with what.
    """
    head = ["trained on", "asked in order", "seen items", "candidates", *names(found)]
    lines = [line([*head, f"{TRAINED} - {COUNTED}", "p"])]
    lines.append("|---|---|---|---|" + "---:|" * (len(names(found)) + 2))
    for protocol, (difference, p) in differences(found).items():
        cells = protocol.cells()
        for name in names(found):
            each = [by_seed(found, protocol, name, m).mean(axis=1) for m in METRICS]
            cells.append(" / ".join(map(spread, each)))
        lines.append(line([*cells, f"{difference:+.4f}", f"{p:.4f}"]))
    shown = ", ".join(map(str, next(iter(found.values()))))
    num_users = by_seed(found, next(iter(found)), TRAINED, METRICS[0]).shape[1]
    text = (
        f"Test {' / '.join(METRICS)}: means and, where seeds differ, standard "
        f"deviations over seeds {shown}; {num_users} users. 95% bootstrap intervals "
        "over users of every figure are in table.csv. The difference is of "
        f"{TESTED}, with p of a two-sided paired randomisation test over users "
        f"({FLIPS:,} sign flips, seeds averaged), corrected by Holm for {len(found)} "
        "tests; others were not tested. Orders are of events of one time: that of "
        f"the file, or drawn anew. {changed[0]:.1%} of the test targets differ between "
        f"the two; {changed[1]:.1%} of those of the drawn order are training events of "
        f"the file's, {changed[2]:.1%} the other way round, which is what *leaks* "
        "says: a state asked in an order that it was not trained on."
    )
    title = "# MovieLens 100K: the same states under several protocols"
    return "\n".join([title, "", *lines, "", text, "", made])


def differences(found: Found) -> dict[Protocol, tuple[float, float]]:
    """The tested metric's mean difference between the two, and its p."""
    means, tests = [], []
    for protocol in found:
        a_SxR, b_SxR = (by_seed(found, protocol, x, TESTED) for x in (TRAINED, COUNTED))
        difference_R = (a_SxR - b_SxR).mean(axis=0)
        means.append(float(difference_R.mean()))
        tests.append(paired_randomisation(difference_R))
    return dict(zip(found, zip(means, holm(tests), strict=True), strict=True))


def spread(means_S: np.ndarray) -> str:
    """Mean and deviation over seeds."""
    more = f" ± {np.std(means_S, ddof=1):.4f}" if len(set(means_S)) > 1 else ""
    return f"{np.mean(means_S):.4f}{more}"


def write_csv(path: Path, found: Found) -> None:
    """Means over users, of each seed, the bounds of the seeds' mean, and the test."""
    parts = ("", " low", " high", " seeds")
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        head = [metric + part for metric in METRICS for part in parts]
        tested = [f"difference from {COUNTED}, {TESTED}", "p"]
        out.writerow([*Protocol._fields, "name", *head, *tested])
        for protocol, test in differences(found).items():
            for name in names(found):
                cells: list[object] = [*protocol, name]
                for metric in METRICS:
                    cells += figures(by_seed(found, protocol, name, metric))
                cells += [f"{x:.6f}" if name == TRAINED else "" for x in test]
                out.writerow(cells)


def figures(values_SxR: np.ndarray) -> list[str]:
    """Mean, its interval over users, and the mean of each seed."""
    users_R, mean_R = np.arange(values_SxR.shape[1]), values_SxR.mean(axis=0)
    bounds = with_intervals({"x": mean_R}, users_R, bootstrap_samples=RESAMPLES)["x"]
    shown = [f"{bounds[key]:.6f}" for key in ("value", "low", "high")]
    return [*shown, " ".join(f"{x:.6f}" for x in values_SxR.mean(axis=1))]


def plot(path: Path, found: Found) -> None:
    """The tested metric by protocol; all items and drawn ones on their own scales."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    colors = dict(zip(names(found), (GRAYED, *OKABE_ITO), strict=False))
    for side, drawn in zip(axes, (False, True), strict=True):
        shown = [p for p in found if bool(p.candidates) == drawn]
        for name, color in colors.items():
            means = [by_seed(found, p, name, TESTED).mean() for p in shown]
            side.plot(means, range(len(shown)), "D", color=color, label=name)
        cells = [protocol.cells() for protocol in shown]
        labels = [f"{trained} / {asked}, {seen}" for trained, asked, seen, _ in cells]
        side.set_yticks(range(len(shown)), labels)
        side.invert_yaxis()
        side.set_xlabel(f"test {TESTED}")
        side.locator_params(axis="x", nbins=6)
        side.set_title(f"candidates: {cells[0][-1]}")
        side.grid(alpha=0.3)
        side.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(
        "MovieLens 100K: order of events of one time, trained on / asked in"
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)
