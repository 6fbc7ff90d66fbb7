"""The same trained states under several protocols: what a figure depends on.

    python -m experiments.protocol.run --out=runs/protocol

MovieLens 100K in two orders of events of one time: the file's, and one drawn anew. A
model is trained on each, with three seeds, and all are asked under both orders, with
seen items masked or not, with all items or 100 drawn ones as candidates. Writes
table.md, table.csv and plot.png. What is trained is not trained again.
"""

import argparse
import contextlib
import io
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.ablations import sources as ablation
from experiments.command import session
from experiments.plots import check_plots
from experiments.protocol.page import (
    METRICS,
    TRAINED,
    Found,
    Protocol,
    page,
    plot,
    write_csv,
)
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


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is missing, asks everything, writes the three files.

    Exit code 2 where that cannot be, `STOPPED` where a signal came.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/protocol"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args(argv)
    with session(args.out):
        check_plots()
        print(compare(args.out, args.seeds))


def compare(out: Path, seeds: Sequence[int]) -> str:
    """Trains, asks and writes; the page."""
    folders = {order: copy_data(out / "data", order) for order in ORDERS}
    found: Found = {}
    for order, seed in itertools.product(ORDERS, seeds):
        run = train(out / order / str(seed), folders[order], seed)
        trained = load_data(make_config(folders[order], seed)).train
        for asked, masked, candidates in itertools.product(
            ORDERS, (True, False), (0, 100)
        ):
            protocol = Protocol(order, asked, masked, candidates)
            config = make_config(folders[asked], seed)
            config.eval.mask_seen, config.eval.candidates = masked, candidates
            values = ask(config, trained, run)
            found.setdefault(protocol, {})[seed] = values
            print(protocol, f"seed {seed}: {values[TRAINED][METRICS[0]]:.4f}")
    changed = compare_orders(*(make_config(folders[order], 0) for order in ORDERS))
    text = page(found, changed)
    (out / "table.md").write_text(text + "\n")
    write_csv(out / "table.csv", found)
    plot(out / "plot.png", found)
    return text


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
    """The run directory of a finished run; ends with its exit code where it fails."""
    command = [sys.executable, "-m", "recjax.main", f"--config={CONFIG}:{POINT}"]
    command += [f"--config.seed={seed}", f"--config.data.source={folder}"]
    command += [f"--config.data.stem={DATA}", f"--workdir={workdir}"]
    if code := subprocess.run(command).returncode:
        sys.exit(code)
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
        (found[TRAINED],) = r.evaluator.by_model(phase.scorer, nested, r.data.test)
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


if __name__ == "__main__":
    main()
