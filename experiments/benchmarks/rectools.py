"""Compares an id-only causal transformer with RecTools' SASRec.

    python -m experiments.benchmarks.rectools --measure=epoch --data=ml-100k
    python -m experiments.benchmarks.rectools --measure=epoch --history=200 --by_length
    python -m experiments.benchmarks.rectools --measure=recommend --data=DIR

Sequences, width, layers, heads and dropout are the same. `epoch` trains one epoch with
the full softmax. `recommend` ranks the unseen items for every test user: ours is the
complete evaluation with its metrics, theirs the top 20 only.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.benchmarks import duel
from experiments.benchmarks.serve import serve
from recjax.config import base
from recjax.data.dataset import Examples
from recjax.run.phases import make_train_logger
from recjax.run.setup import open_run
from recjax.training.callbacks import RunCallbacks
from recjax.training.make_phase import make_phase

GOALS = {"epoch": 2, "recommend": 3}


def config_for(data: str, history: int = 50) -> ConfigDict:
    """Returns SASRec's config: ids, positions, two narrow blocks, H + 1 newest events.

    Args:
      data: name or directory of a data set.
      history: H.
    """
    config = base.get_config()
    config.data.source, config.data.history_length = data, history
    config.data.windows, config.data.shuffle_ties = "last", False
    config.text.title = "{title}" if Path(data).is_dir() else config.text.title
    config.item_tower.sources = ("id",)
    config.user_tower.position, config.user_tower.mlp_ratio = "absolute", 1
    config.train.batch_size = 128
    config.report.every_steps = 10**9
    return config


def work(args: argparse.Namespace) -> None:
    """Writes the input of the peer to the folder, then measures our side."""
    config = config_for(args.data, args.history)
    config.train.by_length = args.by_length
    with open_run(config, args.folder, time.perf_counter()) as (run, params):
        phase, state = make_phase(run, 0, config.train.phases[0], params, 0)
        write_for_peer(config, run.data.train, run.data.test, args)
        if args.measure == "recommend":
            rows = run.data.test

            def recommend() -> dict[str, Any]:
                start = time.perf_counter()
                nested = phase.nested(state.result)
                run.evaluator.by_model(phase.scorer, nested, rows)
                return {"seconds": time.perf_counter() - start}

            recommend()  # compiles all shapes
            return serve({"users": len(rows)}, recommend)

        loop = RunCallbacks(run, phase).start(state)
        logger = make_train_logger(run, phase, loop.progress)

        def epoch() -> dict[str, Any]:
            start = time.perf_counter()
            logger.start_epoch(0.0)
            for _ in range(phase.batches.steps_per_epoch):
                batch = next(loop.batches)
                loop.state, metrics = phase.run_step(loop.state, {}, batch)
                logger.add(metrics, batch)
            logger.flush()
            return {"seconds": time.perf_counter() - start}

        epoch()
        weights = sum(x.size for x in loop.state.trainable.values())
        serve({"weights": weights, "users": len(run.data.train)}, epoch)


def write_for_peer(
    config: ConfigDict, train: Examples, test: Examples, args: argparse.Namespace
) -> None:
    """Writes the ordered events and the settings."""
    if args.measure == "recommend":
        histories = [test.history(row) for row in range(len(test))]
    else:
        histories = [train.sequence(row) for row in range(len(train))]
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    items = np.concatenate(histories)
    np.savez(args.folder / "events.npz", allow_pickle=False, users=users, items=items)
    about = {
        "measure": args.measure,
        "layers": config.user_tower.num_layers,
        "heads": config.user_tower.num_heads,
        "width": config.item_tower.width,
        "dropout": config.user_tower.dropout,
        "history": config.data.history_length,
        "batch_size": config.train.batch_size,
        "lr": config.train.phases[0].lr,
        # Ranking takes as long with any weights, so they are trained cheaply.
        "loss": "softmax" if args.measure == "epoch" else "BCE",
        "k": max(config.eval.ks),
    }
    (args.folder / "about.json").write_text(json.dumps(about))


def main() -> None:
    """Runs both sides and prints a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", choices=GOALS, required=True)
    parser.add_argument("--data", default="ml-100k", help="name or directory")
    parser.add_argument("--history", type=int, default=50, help="events of a user")
    parser.add_argument(
        "--by_length", action="store_true", help="we batch users of similar length"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return work(args)
    with duel.workers("rectools", "rectools_sasrec", "torch") as (ours, peer):
        print(f"ours: {ours.about}\npeer: {peer.about}", file=sys.stderr)
        if ours.about["users"] != peer.about["users"]:
            sys.exit("error: the peer has other users")
        times = duel.duel(ours, peer, args.repeats)
    works = {"epoch": "one epoch of ids", "recommend": "ranking for every test user"}
    name, users = Path(args.data).name, ours.about["users"]
    how = ", by length" if args.by_length else ""
    print(
        duel.row(
            f"{works[args.measure]}, H = {args.history}, {name}, {users:,} users{how}",
            f"{duel.spread(times.ours)} s",
            f"RecTools SASRec {duel.spread(times.peer)} s",
            times.ratio,
            GOALS[args.measure],
        )
    )


if __name__ == "__main__":
    main()
