"""The same trained states under several protocols: what a figure depends on.

    python -m experiments.protocol.run runs/protocol --out=experiments/protocol/ml100k

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
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments import sweep
from experiments.protocol.page import (
    METRICS,
    TRAINED,
    Found,
    Protocol,
    page,
    plot,
    write_csv,
)
from experiments.sweeping.command import session
from experiments.sweeping.load import read_results, resolve
from experiments.tabling.plots import check_plots
from experiments.tabling.table import TABLE_FILES
from recjax.baselines import BASELINES, Baseline
from recjax.checkpointing.checkpoints import read_params
from recjax.common.files import atomic_files
from recjax.data.dataset import Data
from recjax.data.ingest.sources import locate
from recjax.data.splits import load_data
from recjax.evaluation.metrics import MetricValues
from recjax.run.setup import open_run
from recjax.training.phase import make_phase

CONFIG, POINT = "configs/ablations/sources.py", "both_sum"
DATA, FILE, SHUFFLED = "ml-100k", "file", "shuffled"
ORDERS = FILE, SHUFFLED
BESIDE = ("popularity", "transitions", "item_knn", "ease")


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is missing, asks everything, writes the three files.

    Exit code 1 where a run failed, 2 where that cannot be, `STOPPED` where a signal
    came.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", type=Path, help="directory of the two sweeps")
    parser.add_argument("--out", type=Path, help="of the files; RUNS without")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--reuse", nargs="+", type=Path, default=[], help=sweep.REUSE)
    args = parser.parse_args(argv)
    with session(args.runs):
        check_plots()
        (out := args.out or args.runs).mkdir(parents=True, exist_ok=True)
        shuffle_data(copy_of(args.runs))
        for order in ORDERS:
            train(args, order)
        print(compare(args.runs, out, args.seeds))


def copy_of(runs: Path) -> Path:
    """Where the data lie in the other order."""
    return runs / "data" / SHUFFLED


def shuffle_data(here: Path) -> None:
    """Copies the data set with its events in an order drawn anew.

    The order of rows decides among events of one time.
    """
    here.mkdir(parents=True, exist_ok=True)
    for path in locate(DATA).glob(f"{DATA}.*"):
        shutil.copyfile(path, here / path.name)
    path = here / f"{DATA}.inter"
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    drawn = np.random.default_rng(0).permutation(len(rows))
    shuffled = [head, *(rows[i] for i in drawn)]
    path.write_text("\n".join(shuffled) + "\n", encoding="utf-8")


def flags(runs: Path, order: str) -> list[str]:
    """What runs on an order are told beside point and seed."""
    if order == FILE:
        return []
    source = f"--config.data.source={copy_of(runs).resolve()}"
    return [source, f"--config.data.file_prefix={DATA}"]


def train(args: argparse.Namespace, order: str) -> None:
    """A sweep of the one point on an order."""
    command = [f"--config={CONFIG}", f"--points={POINT}", f"--jobs={args.jobs}"]
    command += [f"--out={args.runs / order}", "--seeds", *map(str, args.seeds)]
    command += ["--reuse", *map(str, args.reuse)] if args.reuse else []
    sweep.main([*command, "--", *flags(args.runs, order)])


def make_config(runs: Path, order: str, seed: int) -> ConfigDict:
    """Of a run on an order."""
    made = [f"--config={CONFIG}:{POINT}", f"--config.seed={seed}"]
    config: ConfigDict = resolve([*made, *flags(runs, order)]).unlock()
    return config


def compare(runs: Path, out: Path, seeds: Sequence[int]) -> str:
    """Asks and writes; the page."""
    found: Found = {}
    for order, seed in itertools.product(ORDERS, seeds):
        baselines = fit(make_config(runs, order, seed))
        for asked, masked, candidates in itertools.product(
            ORDERS, (True, False), (0, 100)
        ):
            protocol = Protocol(order, asked, masked, candidates)
            config = make_config(runs, asked, seed)
            config.eval.mask_seen, config.eval.candidates = masked, candidates
            values = ask(config, baselines, runs / order / POINT / str(seed))
            found.setdefault(protocol, {})[seed] = values
            hr = values[TRAINED][METRICS[0]].mean()
            print(protocol, f"seed {seed}: {hr:.4f}")
    changed = compare_orders(*(make_config(runs, order, seeds[0]) for order in ORDERS))
    text = page(found, changed, made_by(runs, seeds))
    with atomic_files(*(out / name for name in TABLE_FILES)) as (
        written,
        numbers,
        image,
    ):
        written.write_text(text + "\n", encoding="utf-8")
        write_csv(numbers, found)
        plot(image, found)
    return text


def made_by(runs: Path, seeds: Sequence[int]) -> str:
    """The command, and what made the states."""
    folders = [runs / x / POINT / str(seed) for x in ORDERS for seed in seeds]
    results = [read_results(folder) for folder in folders]
    codes = sorted({r.get("code", "unknown") for r in results})
    fingerprint = results[0]["fingerprint"]
    shown = " ".join(map(str, seeds))
    return (
        f"Of the first row the protocol is {fingerprint}. Digest of the code that made "
        f"the states: {', '.join(codes)}.\n\n"
        f"    python -m experiments.protocol.run RUNS --seeds {shown}"
    )


def fit(config: ConfigDict) -> dict[str, Baseline]:
    """The baselines, on a run's training."""
    data, fitted = load_data(config), {}
    for name in BESIDE:
        fitted[name] = BASELINES[name](config.seed)
        fitted[name].fit(data.train, data.num_items)
    return fitted


def ask(
    config: ConfigDict, baselines: Mapping[str, Baseline], run: Path
) -> dict[str, MetricValues]:
    """Test rows' metrics of the baselines and of a run's parameters under a protocol.

    Args:
      config: says what is asked.
      baselines: fitted.
      run: a finished run with one phase.
    """
    found, began = {}, time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        open_run(config, Path(folder), began) as (r, params),
    ):
        for name, baseline in baselines.items():
            found[name] = r.evaluator.by_baseline(baseline, r.data.test)
        params |= r.replicate(read_params(run))
        phase, state = make_phase(r, 0, config.train.phases[0], params, 0)
        nested = phase.nested(state.trainable)
        (found[TRAINED],) = r.evaluator.by_model(phase.scorer, nested, r.data.test)
    return {name: {m: x.values[m] for m in METRICS} for name, x in found.items()}


def compare_orders(one: ConfigDict, other: ConfigDict) -> tuple[float, float, float]:
    """Shares of test targets: that differ, of the other's that are in the one's
    training, and the other way round."""
    a, b = load_data(one), load_data(other)
    differ = float((a.test.targets_R != b.test.targets_R).mean())
    return differ, leaked(a, b), leaked(b, a)


def leaked(trained: Data, asked: Data) -> float:
    """Share of the asked test events that are in training."""
    known = set(zip(*map(np.ndarray.tolist, trained.train.pairs()), strict=True))
    test = asked.test
    pairs = zip(test.users_R.tolist(), test.targets_R.tolist(), strict=True)
    return float(np.mean([pair in known for pair in pairs]))


if __name__ == "__main__":
    main()
