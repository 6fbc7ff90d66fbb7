"""The whole job of an id-only causal transformer against RecBole's SASRec.

    python -m experiments.benchmarks.job

From the start of the process to the best validation NDCG@10 before RecBole's own early
stopping, on MovieLens 100K: leave-one-out, the whole catalogue, seen items not masked,
as RecBole does. Width, layers, heads and history are the same; how it is trained is
what either tool takes for this. For each seed the peer runs, then ours does.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments.benchmarks import duel

METRIC = "ndcg@10"


def config_for(seed: int) -> ConfigDict:
    """Ids alone, every event a target, full softmax."""
    c = base.get_config()
    c.seed = seed
    c.item_tower.sources = ("id",)
    c.user_tower.dropout = 0.4
    c.data.reverse = 0.3
    c.loss.smoothing = 0.2
    c.eval.mask_seen = False
    c.train.batch_size = 128
    c.train.phases = (base.phase("towers", epochs=80, lr=2e-3, ema=0.99),)
    c.report.every_steps = 10**9
    return c


def work(args: argparse.Namespace) -> None:
    """Trains until validation reaches what is asked; prints where it stands."""
    import jax

    from recjax.phase import Standing, make_meter, set_up, train_epoch, validate
    from recjax.train import open_run

    c = config_for(args.seed)
    with open_run(c, args.folder, time.perf_counter()) as (r, params):
        phase, state = set_up(r, 0, c.train.phases[0], params, 0)
        iterator, key = iter(phase.batches), r.put_whole(jax.random.key(c.seed + 1))
        meter = make_meter(r, phase, Standing(0, 0.0, 0))
        value, epoch = 0.0, 0
        while value < args.until and epoch < phase.config.epochs:
            meter.start_epoch(value)
            state = train_epoch(r, phase, state, iterator, key, meter)
            meter.end_epoch()
            value, epoch = validate(r, phase, state.result).mean(METRIC), epoch + 1
            print(json.dumps({"epoch": epoch, METRIC: value}), flush=True)


def write_for_peer(folder: Path) -> None:
    """The events as an atomic file, each user's in our order."""
    from recjax.data.protocol import load_data

    test = load_data(config_for(0)).test
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for row in range(len(test)):
        events = enumerate(test.sequence(row))
        lines += [f"u{row}\ti{item}\t{place}" for place, item in events]
    folder.mkdir()
    (folder / "events.inter").write_text("\n".join(lines) + "\n")


def run(command: list[str]) -> Iterator[dict[str, Any]]:
    """What a process prints after its epochs, and the seconds since its start."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=duel.ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{") and METRIC in line:
                found = {**json.loads(line), "seconds": time.perf_counter() - start}
                print(f"{command[2]}: {found}", file=sys.stderr)
                yield found
    if process.returncode:
        sys.exit(f"error: {command[2]} ended with {process.returncode}")


def main() -> None:
    """Runs both sides and prints a markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return work(args)
    python = duel.peer_python("recbole")
    times, reached = duel.Times([], []), []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            write_for_peer(Path(folder) / "events")
            peer = "experiments.benchmarks.peers.recbole_sasrec"
            each = list(run([python, "-m", peer, folder, str(seed)]))
            best = max(each, key=lambda found: found[METRIC])
            ours = [sys.executable, "-m", "experiments.benchmarks.worker"]
            ours += ["experiments.benchmarks.job", f"--seed={seed}"]
            ours += [f"--until={best[METRIC]}", f"--folder={folder}/ours"]
            Path(folder, "ours").mkdir()
            last = list(run(ours))[-1]
            if last[METRIC] < best[METRIC]:
                sys.exit(f"error: ours ends with {last}, the peer's best is {best}")
            times.ours.append(last["seconds"])
            times.peer.append(best["seconds"])
            reached.append(best[METRIC])
    print(
        duel.row(
            f"whole job of ids to validation NDCG@10 {statistics.median(reached):.4f}, "
            f"ml-100k, {len(args.seeds)} seeds",
            f"{duel.spread(times.ours)} s",
            f"RecBole SASRec {duel.spread(times.peer)} s",
            times.ratio,
            50,
        )
    )


if __name__ == "__main__":
    main()
