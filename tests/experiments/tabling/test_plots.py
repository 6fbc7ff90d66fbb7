"""What is drawn where, and that names can be read."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments.tabling import plots
from experiments.tabling.table import Row

pytestmark = pytest.mark.unit

matplotlib.use("Agg")
ROWS = [
    Row("popularity", "baseline", {"hr@10": [0.1]}, {"hr@10": (0.05, 0.15)}),
    Row(
        "plain",
        "variant",
        {"hr@10": [0.2, 0.3]},
        {"hr@10": (0.22, 0.28)},
        {"train s": 10.0, "trained": 1000.0},
    ),
    Row(
        "other",
        "variant",
        {"hr@10": [0.4]},
        {"hr@10": (0.35, 0.45)},
        {"train s": 90.0, "trained": 1000.0},
    ),
    Row("Old", "published", {"hr@10": [0.35]}, source="Paper"),
    Row("Unknown", "published", {}, source="Paper"),
]


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def lines(axes, marker):
    found = [line for line in axes.lines if line.get_marker() == marker]
    return [np.stack(line.get_data(), 1).tolist() for line in found]


def test_rows(axes):
    plots.draw_rows(axes, ROWS[:4], "hr@10", "plain")
    assert lines(axes, "D") == [[[0.1, 0]], [[0.25, 1]], [[0.4, 2]]]
    assert lines(axes, "o") == [[[0.2, 1.25], [0.3, 1.25]]]
    assert lines(axes, "|") == [[[0.35, 3]]]
    intervals = [[[0.05, 0], [0.15, 0]], [[0.22, 1], [0.28, 1]], [[0.35, 2], [0.45, 2]]]
    reference = [[0.25, 0], [0.25, 1]]  # from the bottom to the top
    assert lines(axes, "None") == [intervals[0], reference, *intervals[1:]]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["(popularity)", "plain", "other", "Old (published)"]


def test_a_high_published_value_does_not_squeeze_the_scale(axes):
    rows = [*ROWS[:3], Row("Far", "published", {"hr@10": [0.9]})]
    plots.draw_rows(axes, rows, "hr@10", "plain")
    assert not lines(axes, "|")
    assert lines(axes, ">") == [[[pytest.approx(0.4 * plots.EDGE), 3]]]
    assert [text.get_text() for text in axes.texts] == ["0.9000 "]


def test_values_of_other_data_are_a_note(tmp_path, monkeypatch):
    far = Row("Far", "published", {"hr@10": [0.9]}, source="Paper", data="MIND")
    assert far.label == "Far, on MIND (published)"
    drawn, legends = [], []
    monkeypatch.setattr(plots, "draw_rows", lambda _, rows, *args: drawn.append(rows))
    monkeypatch.setattr(Figure, "legend", lambda _, **options: legends.append(options))
    path = tmp_path / "plot.png"
    plots.plot(path, [*ROWS, far], ["hr@10"], reference="plain")
    assert drawn == [ROWS[:4]]
    (legend,) = legends
    assert legend["title"] == (
        "Published on other data, not comparable: Far, on MIND: hr@10 0.9000 (Paper)"
    )
    labels = [handle.get_label() for handle in legend["handles"]]
    assert labels[-1] == "mean of plain"


def test_a_row_without_the_metric_keeps_its_place(axes):
    plots.draw_rows(axes, [ROWS[1], ROWS[4], ROWS[2]], "hr@10", "plain")
    assert [d[0][1] for d in lines(axes, "D")] == [0, 2]


@pytest.mark.parametrize(("x", "scale"), [("seconds", "log"), ("params", "linear")])
def test_costs(axes, x, scale):
    plots.draw_costs(axes, ROWS[1:3], "hr@10", plots.AXES[x])
    costs = {"seconds": [10, 90], "params": [1000, 1000]}[x]
    (found,) = lines(axes, "D")
    assert found == [[costs[0], 0.25], [costs[1], 0.4]]
    assert axes.get_xscale() == scale
    if scale == "linear":
        assert axes.get_xlim() == (0, 1150)
    shown = axes.xaxis.get_major_formatter()
    assert [shown(x, 0) for x in (0.6, 30, 2000)] == ["0.6", "30", "2k"]


def test_the_file(tmp_path):
    path = tmp_path / "plot.png"
    plots.plot(path, ROWS, ["hr@10"], reference="plain", title="Title")
    assert image.imread(path).shape[1] == 1500
    assert not plt.get_fignums()


def test_dollar_signs_are_not_mathematics(tmp_path):
    r"""A title or name of two $, or of \no command that there is."""
    rows = [dataclasses.replace(row, name=rf"{row.name} $\no{{x}}$") for row in ROWS]
    title = "under $5, over $9"
    path = tmp_path / "plot.png"
    plots.plot(path, rows, ["hr@10"], reference="plain", title=title)
    assert path.exists()


def test_labels_of_close_markers_do_not_overlap(axes):
    """Twelve markers within a few pixels, and one at the right edge."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 0.52, 12), rng.uniform(0.5, 0.52, 12)
    x, y = np.append(x, 1.0), np.append(y, 0.9)
    axes.set(xlim=(0, 1.01), ylim=(0, 1))
    axes.figure.draw_without_rendering()
    names = [f"marker number {i}" for i in range(13)]
    texts = plots.label(axes, x, y, names)
    assert sorted(text.get_text() for text in texts) == sorted(names)
    axes.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert axes.get_window_extent().contains(*box.min)
        assert axes.get_window_extent().contains(*box.max)
        assert not any(box.contains(*p) for p in axes.transData.transform(np.c_[x, y]))
