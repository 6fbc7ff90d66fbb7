"""Writes the table, the CSV file and the plot of the protocols."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.tabling.plots import GRAY, OKABE_ITO
from experiments.tabling.statistics import FLIPS, holm, paired_randomisation
from experiments.tabling.table import markdown_line
from recjax.evaluation.metrics import MetricValues, with_intervals

METRICS = ("hr@10", "ndcg@10")
TESTED = METRICS[1]
TRAINED, TRANSITIONS = "trained", "transitions"  # the systems that are compared
BOOTSTRAP_SAMPLES = 1000


class Protocol(NamedTuple):
    """An evaluation protocol.

    Attributes:
      trained: order of simultaneous events in training.
      evaluated: order of simultaneous events in the evaluation.
      masked: whether seen items are excluded from the candidates.
      candidates: number of sampled candidates per target; 0 is all items.
    """

    trained: str
    evaluated: str
    masked: bool
    candidates: int

    def cells(self) -> list[str]:
        """Returns the cells of the table."""
        leak = "" if self.evaluated == self.trained else ", leaks"
        seen = "masked" if self.masked else "not masked"
        candidates = f"{self.candidates} sampled" if self.candidates else "all"
        return [self.trained, self.evaluated + leak, seen, candidates]


# Metrics of the test examples, one for each user, by protocol, seed and system.
Measurements = dict[Protocol, dict[int, dict[str, MetricValues]]]


def names(found: Measurements) -> list[str]:
    """Returns the names of the systems."""
    return list(next(iter(next(iter(found.values())).values())))


def by_seed(
    found: Measurements, protocol: Protocol, name: str, metric: str
) -> np.ndarray:
    """Returns values_SxR of a system, for each seed and test example."""
    return np.stack([systems[name][metric] for systems in found[protocol].values()])


def page(found: Measurements, fractions: tuple[float, float, float], made: str) -> str:
    """Returns the table and its description.

    Args:
      found: the measurements.
      fractions: fractions of the test targets that differ between the orders, that
        are training events of the file's order while tested in the shuffled one, and
        the other way round.
      made: paragraph with the code version and the command.
    """
    head = ["trained on", "evaluated on", "seen items", "candidates", *names(found)]
    lines = [markdown_line([*head, f"{TRAINED} - {TRANSITIONS}", "p"])]
    lines.append("|---|---|---|---|" + "---:|" * (len(names(found)) + 2))
    for protocol, (difference, p) in differences(found).items():
        cells = protocol.cells()
        for name in names(found):
            means = [by_seed(found, protocol, name, m).mean(axis=1) for m in METRICS]
            cells.append(" / ".join(map(mean_and_deviation, means)))
        lines.append(markdown_line([*cells, f"{difference:+.4f}", f"{p:.4f}"]))
    shown = ", ".join(map(str, next(iter(found.values()))))
    differ, in_file, in_shuffled = fractions
    num_users = by_seed(found, next(iter(found)), TRAINED, METRICS[0]).shape[1]
    text = (
        f"Test {' / '.join(METRICS)}: mean and, if seeds differ, standard deviation "
        f"over seeds {shown}; {num_users} users. table.csv has the 95% bootstrap "
        f"intervals over users. The difference is in {TESTED}; p is from a two-sided "
        f"paired randomisation test over users ({FLIPS:,} sign flips, seeds averaged), "
        f"with Holm's correction for {len(found)} tests; other pairs were not tested. "
        "The order is that of simultaneous events: as in the file, or shuffled. "
        f"{differ:.1%} of the test targets differ between the two orders; "
        f"{in_file:.1%} of the targets of the shuffled order are training events of "
        f"the file's order, and {in_shuffled:.1%} the other way round. This is marked "
        "as *leaks*: the model is evaluated on another order than it was trained on."
    )
    title = "# MovieLens 100K: the same models under several protocols"
    return "\n".join([title, "", *lines, "", text, "", made])


def differences(found: Measurements) -> dict[Protocol, tuple[float, float]]:
    """Returns by protocol the mean difference of the tested metric, and its p-value."""
    means, tests = [], []
    for protocol in found:
        trained_SxR = by_seed(found, protocol, TRAINED, TESTED)
        transitions_SxR = by_seed(found, protocol, TRANSITIONS, TESTED)
        difference_R = (trained_SxR - transitions_SxR).mean(axis=0)
        means.append(float(difference_R.mean()))
        tests.append(paired_randomisation(difference_R))
    return dict(zip(found, zip(means, holm(tests), strict=True), strict=True))


def mean_and_deviation(means_S: np.ndarray) -> str:
    """Returns the mean and, if they differ, the standard deviation over seeds."""
    deviation = f" ± {np.std(means_S, ddof=1):.4f}" if len(set(means_S)) > 1 else ""
    return f"{np.mean(means_S):.4f}{deviation}"


def write_csv(path: Path, found: Measurements) -> None:
    """Writes means over users, intervals, the values of all seeds, and the test."""
    parts = ("", " low", " high", " seeds")
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        head = [metric + part for metric in METRICS for part in parts]
        tested = [f"difference from {TRANSITIONS}, {TESTED}", "p"]
        out.writerow([*Protocol._fields, "name", *head, *tested])
        for protocol, test in differences(found).items():
            for name in names(found):
                cells: list[object] = [*protocol, name]
                for metric in METRICS:
                    cells += format_values(by_seed(found, protocol, name, metric))
                cells += [f"{x:.6f}" if name == TRAINED else "" for x in test]
                out.writerow(cells)


def format_values(values_SxR: np.ndarray) -> list[str]:
    """Returns the mean, its interval over users, and the mean of each seed."""
    users_R = np.arange(values_SxR.shape[1])  # each user has one test example
    mean_R = values_SxR.mean(axis=0)
    bounds = with_intervals(
        {"x": mean_R}, users_R, bootstrap_samples=BOOTSTRAP_SAMPLES
    )["x"]
    shown = [f"{bounds[key]:.6f}" for key in ("value", "low", "high")]
    return [*shown, " ".join(f"{x:.6f}" for x in values_SxR.mean(axis=1))]


def plot(path: Path, found: Measurements) -> None:
    """Plots the tested metric by protocol, sampled candidates with their own scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    colors = dict(zip(names(found), (GRAY, *OKABE_ITO), strict=False))
    for side, sampled in zip(axes, (False, True), strict=True):
        shown = [x for x in found if bool(x.candidates) == sampled]
        for name, color in colors.items():
            means = [by_seed(found, p, name, TESTED).mean() for p in shown]
            side.plot(means, range(len(shown)), "D", color=color, label=name)
        cells = [protocol.cells() for protocol in shown]
        labels = [f"{trained} / {order}, {seen}" for trained, order, seen, _ in cells]
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
        "MovieLens 100K: order of simultaneous events in training / evaluation"
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)
