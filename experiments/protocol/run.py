"""The same trained states under several protocols: what a figure depends on.

    python -m experiments.protocol.run --out=runs/protocol

MovieLens 100K in two orders of events of one time: the file's, and one drawn anew. A
model is trained on each, with three seeds, and all are asked under both orders, with
seen items masked or not, with all items or 100 drawn ones as candidates. Writes
table.md, table.csv and plot.png. What is trained is not trained again.
"""

import argparse
import contextlib
import csv
import io
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from configs.ablations import sources as ablation
from recjax.baselines import BASELINES
from recjax.checkpoint import read_params
from recjax.data import sources
from recjax.data.protocol import load_data
from recjax.data.rows import Data
from recjax.phase import set_up
from recjax.train import open_run

CONFIG, POINT = "configs/ablations/sources.py", "both_sum"
DATA, ORDERS = "ml-100k", ("file", "shuffled")
BESIDE = ("popularity", "transitions", "item_knn", "ease")
METRICS = ("hr@10", "ndcg@10")
NAMES = (*BESIDE, "trained")
COLORS = dict(
    zip(NAMES, ("#999999", "#E69F00", "#56B4E9", "#009E73", "#0072B2"), strict=True)
)


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

    @property
    def label(self) -> str:
        """In the table."""
        order = self.asked if self.asked == self.trained else f"{self.asked}, other"
        drawn = f"{self.candidates} drawn" if self.candidates else "all"
        return f"{order} | {'masked' if self.masked else 'not masked'} | {drawn}"


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is missing, asks everything, writes the three files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/protocol"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args(argv)
    folders = {order: copy_data(args.out / "data", order) for order in ORDERS}
    found: dict[Protocol, dict[str, list[dict[str, float]]]] = {}
    for order, seed in itertools.product(ORDERS, args.seeds):
        run = train(args.out / order / str(seed), folders[order], seed)
        trained = load_data(make_config(folders[order], seed)).train
        for asked, masked, candidates in itertools.product(
            ORDERS, (True, False), (0, 100)
        ):
            protocol = Protocol(order, asked, masked, candidates)
            config = make_config(folders[asked], seed)
            config.eval.mask_seen, config.eval.candidates = masked, candidates
            values = ask(config, trained, run)
            each = found.setdefault(protocol, {name: [] for name in NAMES})
            for name in NAMES:
                each[name].append(values[name])
            print(protocol.label, seed, f"{values['trained'][METRICS[0]]:.4f}")
    changed = compare_orders(*(make_config(folders[o], 0) for o in ORDERS))
    text = page(found, args.seeds, changed)
    (args.out / "table.md").write_text(text + "\n")
    write_csv(args.out / "table.csv", found)
    plot(args.out / "plot.png", found)
    print(text)


def copy_data(out: Path, order: str) -> Path:
    """The data set with events of one time in an order; that of the rows decides."""
    there, here = sources.locate(DATA), out / order
    here.mkdir(parents=True, exist_ok=True)
    for path in there.glob(f"{DATA}.*"):
        shutil.copyfile(path, here / path.name)
    if order == "shuffled":
        path = here / f"{DATA}.inter"
        head, *rows = path.read_text().splitlines()
        drawn = np.random.default_rng(0).permutation(len(rows))
        path.write_text("\n".join([head, *(rows[i] for i in drawn)]) + "\n")
    return here


def make_config(folder: Path, seed: int) -> ConfigDict:
    """Of a run on that copy."""
    config = ablation.get_config(POINT).unlock()
    config.seed, config.data.source, config.data.stem = seed, str(folder), DATA
    return config


def train(workdir: Path, folder: Path, seed: int) -> Path:
    """The run directory of a finished run."""
    command = [sys.executable, "-m", "recjax.main", f"--config={CONFIG}:{POINT}"]
    command += [f"--config.seed={seed}", f"--config.data.source={folder}"]
    command += [f"--config.data.stem={DATA}", f"--workdir={workdir}"]
    subprocess.run(command, check=True)
    return workdir


def ask(config: ConfigDict, trained: Any, run: Path) -> dict[str, dict[str, float]]:
    """Test metrics of the baselines and of a run's parameters under a protocol.

    Args:
      config: says what is asked.
      trained: rows that the run was trained on; the baselines are fitted on them.
      run: a finished run with one phase.
    """
    found, began = {}, time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        open_run(config, Path(folder), began) as (r, params),
    ):
        for name in BESIDE:
            baseline = BASELINES[name](config.seed)
            baseline.fit(trained, r.data.num_items)
            found[name] = r.evaluator.by_baseline(baseline, r.data.test)
        params |= r.put_whole(read_params(run))
        phase, state = set_up(r, 0, config.train.phases[0], params, 0)
        nested = phase.nested(state.trainable)
        (found["trained"],) = r.evaluator.by_model(phase.scorer, nested, r.data.test)
    return {name: {m: x.mean(m) for m in METRICS} for name, x in found.items()}


def compare_orders(one: ConfigDict, other: ConfigDict) -> tuple[float, float]:
    """Shares of test targets that differ, and that the other's training has."""
    a, b = load_data(one), load_data(other)
    return float((a.test.targets_R != b.test.targets_R).mean()), leaked(a, b)


def leaked(trained: Data, asked: Data) -> float:
    """Share of the asked test events that are in training."""
    known = set(zip(*map(np.ndarray.tolist, trained.train.pairs()), strict=True))
    test = asked.test
    pairs = zip(test.users_R.tolist(), test.targets_R.tolist(), strict=True)
    return float(np.mean([pair in known for pair in pairs]))


def page(found: Any, seeds: list[int], changed: tuple[float, float]) -> str:
    """The table, and what it is."""
    lines = [
        "| trained on | asked in order | seen items | candidates | "
        + " | ".join(NAMES)
        + " |",
        "|---|---|---|---|" + "---:|" * len(NAMES),
    ]
    for protocol, each in found.items():
        cells = [" / ".join(spread(each[n], m) for m in METRICS) for n in NAMES]
        lines.append(
            f"| {protocol.trained} | {protocol.label} | " + " | ".join(cells) + " |"
        )
    return "\n".join(
        [
            "# MovieLens 100K: the same states under several protocols",
            "",
            *lines,
            "",
            f"Test {' / '.join(METRICS)}: means and, where seeds differ, standard "
            f"deviations over seeds {', '.join(map(str, seeds))}. Orders are of events "
            "of one time: that of the file, or drawn anew. "
            f"{changed[0]:.1%} of the test targets differ between the two; "
            f"{changed[1]:.1%} of those of the drawn order are training events of the "
            "file's, which is what *other* says: a state asked in an order that it was "
            "not trained on.",
        ]
    )


def spread(values: list[dict[str, float]], metric: str) -> str:
    """Mean and deviation over seeds."""
    each = [x[metric] for x in values]
    more = f" ± {np.std(each, ddof=1):.4f}" if len(set(each)) > 1 else ""
    return f"{np.mean(each):.4f}{more}"


def write_csv(path: Path, found: Any) -> None:
    """Every seed's figures."""
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*Protocol._fields, "name", "seed", *METRICS])
        for protocol, each in found.items():
            for name, seeds in each.items():
                for i, values in enumerate(seeds):
                    figures = [f"{values[m]:.6f}" for m in METRICS]
                    out.writerow([*protocol, name, i, *figures])


def plot(path: Path, found: Any) -> None:
    """HR by protocol, all items and drawn ones on scales of their own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for side, candidates in zip(axes, (0, 100), strict=True):
        shown = [p for p in found if p.candidates == candidates]
        for name in NAMES:
            means = [np.mean([x[METRICS[0]] for x in found[p][name]]) for p in shown]
            side.plot(means, range(len(shown)), "D", color=COLORS[name], label=name)
        labels = [
            f"{p.trained} / {p.asked}, {'masked' if p.masked else 'not masked'}"
            for p in shown
        ]
        side.set_yticks(range(len(shown)), labels)
        side.invert_yaxis()
        side.set_xlabel(f"test {METRICS[0]}")
        side.set_title(f"{candidates} drawn" if candidates else "all items")
        side.grid(alpha=0.3)
        side.spines[["top", "right"]].set_visible(False)
    axes[0].legend()
    figure.suptitle("MovieLens 100K: order of equal times in training / in the test")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
