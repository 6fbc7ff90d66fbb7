"""Evaluates the same trained models under several protocols.

    python -m experiments.protocol.run runs/protocol --out=experiments/protocol/ml100k

MovieLens 100K has many simultaneous events. A model is trained on the order of the
file and on a shuffled order of these, with three seeds. Each is evaluated on both
orders, with seen items masked or not, and with all items or 100 sampled ones as
candidates. Writes table.md, table.csv and plot.png. Finished runs are not repeated.
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
    Measurements,
    Protocol,
    page,
    plot,
    write_csv,
)
from experiments.sweeping.command import path_argument, session
from experiments.sweeping.load import read_results, resolve
from experiments.tabling.plots import check_plots
from experiments.tabling.table import TABLE_FILES
from recjax.baselines import BASELINES, Baseline
from recjax.checkpointing.checkpoints import read_params
from recjax.common.files import atomic_files
from recjax.data.dataset import Data
from recjax.data.ingest.sources import locate_data
from recjax.data.splits import load_data
from recjax.evaluation.metrics import MetricValues
from recjax.run.setup import open_run
from recjax.runtime.mesh import replicate
from recjax.training.make_phase import make_phase

CONFIG, VARIANT = "configs/ablations/sources.py", "both_sum"
DATA, FILE, SHUFFLED = "ml-100k", "file", "shuffled"
CANDIDATES = 100  # sampled per target
ORDERS = FILE, SHUFFLED
COMPARED = ("popularity", "transitions", "item_knn", "ease")


def main(argv: Sequence[str] | None = None) -> None:
    """Trains the missing models, evaluates all, and writes the files.

    The exit code is 1 if a run failed, 2 after an error and `STOPPED` after a signal.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", type=path_argument, help="directory of the two sweeps")
    parser.add_argument(
        "--out", type=path_argument, help="directory to write (default: RUNS)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs")
    parser.add_argument(
        "--reuse", nargs="+", type=path_argument, default=[], help=sweep.REUSE
    )
    args = parser.parse_args(argv)
    with session(args.runs):
        check_plots()
        (out := args.out or args.runs).mkdir(parents=True, exist_ok=True)
        shuffle_data(shuffled_data(args.runs))
        for order in ORDERS:
            train(args, order)
        print(compare(args.runs, out, args.seeds))


def shuffled_data(runs: Path) -> Path:
    """Returns the directory of the data in the shuffled order."""
    return runs / "data" / SHUFFLED


def shuffle_data(folder: Path) -> None:
    """Copies the data set with its lines shuffled.

    The order of the lines decides the order of simultaneous events.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in locate_data(DATA).glob(f"{DATA}.*"):
        shutil.copyfile(path, folder / path.name)
    path = folder / f"{DATA}.inter"
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [head, *(rows[i] for i in order)]
    path.write_text("\n".join(shuffled) + "\n", encoding="utf-8")


def flags(runs: Path, order: str) -> list[str]:
    """Returns the flags of the runs on an order, without variant and seed."""
    if order == FILE:
        return []
    source = f"--config.data.source={shuffled_data(runs).resolve()}"
    return [source, f"--config.data.file_prefix={DATA}"]


def train(args: argparse.Namespace, order: str) -> None:
    """Trains the model on an order with every seed, as a sweep with one variant."""
    command = [f"--config={CONFIG}", f"--variants={VARIANT}", f"--jobs={args.jobs}"]
    command += [f"--out={args.runs / order}", "--seeds", *map(str, args.seeds)]
    command += ["--reuse", *map(str, args.reuse)] if args.reuse else []
    sweep.main([*command, "--", *flags(args.runs, order)])


def make_config(runs: Path, order: str, seed: int) -> ConfigDict:
    """Returns the config of a run on an order."""
    own = [f"--config={CONFIG}:{VARIANT}", f"--config.seed={seed}"]
    config: ConfigDict = resolve([*own, *flags(runs, order)]).unlock()
    return config


def compare(runs: Path, out: Path, seeds: Sequence[int]) -> str:
    """Evaluates all models under all protocols, writes the files, returns the page."""
    found: Measurements = {}
    for order, seed in itertools.product(ORDERS, seeds):
        baselines = fit_baselines(make_config(runs, order, seed))
        for evaluated, masked, candidates in itertools.product(
            ORDERS, (True, False), (0, CANDIDATES)
        ):
            protocol = Protocol(order, evaluated, masked, candidates)
            config = make_config(runs, evaluated, seed)
            config.eval.mask_seen, config.eval.candidates = masked, candidates
            values = evaluate(config, baselines, runs / order / VARIANT / str(seed))
            found.setdefault(protocol, {})[seed] = values
            hr = values[TRAINED][METRICS[0]].mean()
            print(protocol, f"seed {seed}: {hr:.4f}")
    fractions = compare_orders(
        *(make_config(runs, order, seeds[0]) for order in ORDERS)
    )
    text = page(found, fractions, describe_runs(runs, seeds))
    with atomic_files(*(out / name for name in TABLE_FILES)) as (
        written,
        numbers,
        image,
    ):
        written.write_text(text + "\n", encoding="utf-8")
        write_csv(numbers, found)
        plot(image, found)
    return text


def describe_runs(runs: Path, seeds: Sequence[int]) -> str:
    """Returns the protocol, the code version and the command of the runs."""
    folders = [runs / x / VARIANT / str(seed) for x in ORDERS for seed in seeds]
    results = [read_results(folder) for folder in folders]
    codes = sorted({run["code"] for run in results})
    fingerprint = results[0]["fingerprint"]
    shown = " ".join(map(str, seeds))
    return (
        f"The protocol of the first row is {fingerprint}. The models were made with "
        f"code digest {', '.join(codes)}.\n\n"
        f"    python -m experiments.protocol.run RUNS --seeds {shown}"
    )


def fit_baselines(config: ConfigDict) -> dict[str, Baseline]:
    """Fits the baselines on the training events of a run."""
    data = load_data(config)
    fitted = {}
    for name in COMPARED:
        fitted[name] = BASELINES[name](config.seed)
        fitted[name].fit(data.train, data.num_items)
    return fitted


def evaluate(
    config: ConfigDict, baselines: Mapping[str, Baseline], trained: Path
) -> dict[str, MetricValues]:
    """Returns the metrics of all test examples under a protocol, by system.

    Args:
      config: config with the protocol.
      baselines: fitted baselines.
      trained: directory of a finished run with one phase.
    """
    ranked = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        open_run(config, Path(folder), time.perf_counter()) as (run, params),
    ):
        test = run.data.test
        for name, baseline in baselines.items():
            ranked[name] = run.evaluator.by_baseline(baseline, test)
        params |= replicate(read_params(trained), run.mesh)
        phase, state = make_phase(run, 0, config.train.phases[0], params, 0)
        nested = phase.nested(state.trainable)
        (ranked[TRAINED],) = run.evaluator.by_model(phase.scorer, nested, test)
    return {name: {m: x.values[m] for m in METRICS} for name, x in ranked.items()}


def compare_orders(one: ConfigDict, other: ConfigDict) -> tuple[float, float, float]:
    """Returns three fractions of the test targets.

    The first is the fraction that differs between the two orders. The others are the
    fraction of `other`'s test targets in `one`'s training, and the other way round.
    """
    first, second = load_data(one), load_data(other)
    differ = float((first.test.targets_R != second.test.targets_R).mean())
    return differ, leaked(first, second), leaked(second, first)


def leaked(trained: Data, evaluated: Data) -> float:
    """Returns the fraction of the test events that are training events."""
    known = set(zip(*map(np.ndarray.tolist, trained.train.pairs()), strict=True))
    test = evaluated.test
    pairs = zip(test.users_R.tolist(), test.targets_R.tolist(), strict=True)
    return float(np.mean([pair in known for pair in pairs]))


if __name__ == "__main__":
    main()
