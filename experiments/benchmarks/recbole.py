"""Compares training an id-only causal transformer with RecBole's SASRec.

    python -m experiments.benchmarks.recbole

Measures the time from the start of the process to the best validation NDCG@10 that
RecBole finds before its early stopping or within `--minutes`, on MovieLens 100K, with
RecBole's protocol: leave-one-out, the full catalogue, seen items not masked. Width,
layers, heads and history length are the same. For each seed the peer runs first, and
then ours twice: with a fast recipe (attention bias for age, reversed windows, label
smoothing, a larger learning rate; chosen on validation), and with RecBole's defaults
(learning rate, dropout, positions, no decay, the same number of targets per step).
RecBole computes every prefix of a history separately, recjax all prefixes of a window
at once. Ours starts without compiled programs.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.benchmarks import duel
from recjax.config import base

METRIC = "ndcg@10"
RECIPES = {"ours": "our fast recipe", "theirs": "RecBole's recipe"}


def config_for(seed: int, recipe: str) -> ConfigDict:
    """Returns a config with ids only, every event a target, and full softmax."""
    config = base.get_config()
    config.seed = seed
    config.item_tower.sources = ("id",)
    config.eval.mask_seen = False
    config.report.every_steps = 10**9
    if recipe == "theirs":  # RecBole's defaults for everything that affects training
        config.train.batch_size = 40  # windows of 50 targets, about RecBole's 2,048
        config.user_tower.position, config.user_tower.dropout = "absolute", 0.5
        config.data.shuffle_ties = False
        config.optim.weight_decay, config.optim.clip_norm = 0.0, 0.0
        config.train.phases = (base.phase("towers", epochs=300, lr=1e-3),)
    else:
        config.train.batch_size = 32
        config.data.reverse = 0.3
        config.loss.smoothing = 0.2
        config.train.phases = (base.phase("towers", epochs=80, lr=4e-3, ema=0.95),)
    return config


def work(args: argparse.Namespace) -> None:
    """Trains until validation reaches the goal, and prints the metric of each epoch."""
    # Imported here, because the process that measures needs no JAX.
    from recjax.run.phases import make_train_logger
    from recjax.run.setup import open_run
    from recjax.training.callbacks import RunCallbacks
    from recjax.training.make_phase import make_phase

    config = config_for(args.seed, args.recipe)
    with open_run(config, args.folder, time.perf_counter()) as (run, params):
        phase, state = make_phase(run, 0, config.train.phases[0], params, 0)
        callbacks = RunCallbacks(run, phase)
        loop = callbacks.start(state)
        logger = make_train_logger(run, phase, loop.progress)
        value, epoch = 0.0, 0
        while value < args.until and epoch < phase.config.epochs:
            logger.start_epoch(value)
            for _ in range(phase.batches.steps_per_epoch):
                batch = next(loop.batches)
                loop.state, metrics = phase.run_step(loop.state, {}, batch)
                logger.add(metrics, batch)
            logger.flush()
            value = callbacks.validate(loop)
            epoch += 1
            print(json.dumps({"epoch": epoch, METRIC: value}), flush=True)


def write_for_peer(folder: Path) -> None:
    """Writes the events as an atomic file; positions as times keep our order."""
    from recjax.data.splits import load_data

    test = load_data(config_for(0, "ours")).test
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for row in range(len(test)):
        events = enumerate(test.sequence(row))
        lines += [f"u{row}\ti{item}\t{position}" for position, item in events]
    folder.mkdir()
    (folder / "events.inter").write_text("\n".join(lines) + "\n")


def peer_epochs(folder: Path, seed: int, minutes: float) -> list[dict[str, Any]]:
    """Returns the peer's validation metric after each epoch."""
    write_for_peer(folder / "events")
    peer = "experiments.benchmarks.peers.recbole_sasrec"
    command = [duel.peer_python("recbole"), "-m", peer, str(folder), str(seed)]
    return list(run(command, minutes))


def run(command: list[str], minutes: float = math.inf) -> Iterator[dict[str, Any]]:
    """Yields what a process prints after each epoch, and the seconds since its start.

    Args:
      command: command that trains.
      minutes: limit, after which the process is ended at the next epoch.
    """
    start, ended = time.perf_counter(), False
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            cwd=duel.ROOT,
            # An empty cache: the time includes compilation.
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": folder},
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{") and METRIC in line:
                found = {**json.loads(line), "seconds": time.perf_counter() - start}
                print(f"{command[2]}: {found}", file=sys.stderr)
                yield found
                if found["seconds"] > 60 * minutes and not ended:
                    process.terminate()
                    ended = True
    if process.returncode and not ended:
        sys.exit(f"error: {command[2]} ended with {process.returncode}")


def main() -> None:
    """Runs both sides and prints a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="limit of the peer for each seed",
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--recipe", choices=RECIPES, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return work(args)
    times = {recipe: duel.Times([], []) for recipe in RECIPES}
    goals, peer_notes = [], []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            epochs = peer_epochs(Path(folder), seed, args.minutes)
            best = max(epochs, key=lambda found: found[METRIC])
            goals.append(best[METRIC])
            peer_notes.append(f"epoch {best['epoch']} of {len(epochs)}")
            for recipe in RECIPES:
                ours = [sys.executable, "-m", "experiments.benchmarks.worker"]
                ours += ["experiments.benchmarks.recbole", f"--seed={seed}"]
                ours += [f"--recipe={recipe}", f"--until={best[METRIC]}"]
                ours += [f"--folder={folder}/{recipe}"]
                Path(folder, recipe).mkdir()
                last = list(run(ours))[-1]
                if last[METRIC] >= best[METRIC]:
                    times[recipe].ours.append(last["seconds"])
                    times[recipe].peer.append(best["seconds"])
                else:
                    print(f"{recipe}: ends with {last}, below {best}", file=sys.stderr)
    seeds = f"{len(args.seeds)} seed" + "s" * (len(args.seeds) > 1)
    for recipe, found in times.items():
        if len(found.ours) < len(args.seeds):
            continue
        print(
            duel.row(
                "training with ids to validation NDCG@10 "
                f"{statistics.median(goals):.4f}, ml-100k, {seeds}, {RECIPES[recipe]}",
                f"{duel.spread(found.ours)} s",
                f"RecBole SASRec {duel.spread(found.peer)} s ({', '.join(peer_notes)})",
                found.ratio,
                50,
            )
        )


if __name__ == "__main__":
    main()
