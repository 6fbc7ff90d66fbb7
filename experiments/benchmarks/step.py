"""Compares an end-to-end training step with a PyTorch trainer.

    python -m experiments.benchmarks.step --data=ml-100k --layers=2

Both compute the same in-batch softmax with logQ, with the same weights and batches. The
losses without dropout must agree before anything is measured.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.benchmarks import duel
from experiments.benchmarks.serve import serve
from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.config import base
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.types import Batch
from recjax.data.ingest.sources import locate_encoder
from recjax.losses import LOSSES
from recjax.losses.base import LossInputs
from recjax.run.setup import open_run
from recjax.training.context import Run
from recjax.training.make_phase import make_phase
from recjax.training.phase import Phase

BATCHES = 4


def config_for(data: str, layers: int, batch_size: int) -> ConfigDict:
    """Returns a config with texts only and in-batch softmax.

    Args:
      data: name or directory of a data set.
      layers: number of trained encoder layers; all if negative.
      batch_size: users per step.
    """
    config = base.get_config()
    if Path(data).name == "amazon-industrial":
        config.data.split, config.data.history_length = "fixed", 10
        config.text.template, config.text.max_tokens = "{title}", 64
    config.data.source = data
    config.text.title = config.text.template
    config.user_tower.position = "absolute"
    config.loss.negatives = "in_batch"
    config.train.batch_size = batch_size
    rules = base.freeze("none") if layers < 0 else base.freeze(layers, layers=6)
    config.train.phases = (base.phase("top", epochs=1, lr_mults=rules),)
    return config


def work(args: argparse.Namespace) -> None:
    """Writes the input of the peer to the folder, then measures our side."""
    (depth,) = args.layers
    config = config_for(args.data, depth, args.batch_size)
    with open_run(config, args.folder, time.perf_counter()) as (run, params):
        start = time.perf_counter()
        phase, state = make_phase(run, 0, config.train.phases[0], params, 0)
        prefix = time.perf_counter() - start
        rng = np.random.default_rng(0)
        windows = len(phase.batches.windows)
        chosen = [
            rng.choice(windows, args.batch_size, replace=False) for _ in range(BATCHES)
        ]
        batches = [phase.batches.make_batch(some) for some in chosen]
        write_for_peer(run, params, batches, phase.batches, args)
        plain = plain_loss(run, phase, params, batches[0])
        for batch in batches:  # compiles all shapes
            state, _ = phase.run_step(state, {}, batch)
        turn = itertools.cycle(chosen)

        def step() -> dict[str, Any]:
            nonlocal state
            start = time.perf_counter()
            batch = phase.batches.make_batch(next(turn))
            state, values = phase.run_step(state, {}, batch)
            value = float(values["loss"])
            return {"seconds": time.perf_counter() - start, "loss": value}

        items = [int((b.items.items_U >= 0).sum()) for b in batches if b.items]
        serve({"loss": plain, "prefix": prefix, "distinct": items}, step)


def plain_loss(run: Run, phase: Phase, params: FlatParams, batch: Batch) -> float:
    """Returns the loss of a batch without dropout."""
    assert batch.items is not None

    def compute(params: FlatParams, catalogue: Any, batch: Any) -> jax.Array:
        queries_PxD, candidates_UxD, bias_U, _ = phase.scorer.model.apply(
            {"params": unflatten_params(params)}, catalogue, batch
        )
        mask_P = batch.position_P >= 0
        scored = LossInputs(
            queries_PxD,
            candidates_UxD,
            bias_U,
            batch.targets_P,
            mask_P,
            batch.items.log_weight_U,
        )
        loss = LOSSES[run.config.loss.name](run.config.loss, run.data.num_items)
        loss_P = loss(scored)
        return loss_P.sum() / mask_P.sum()

    return float(jax.jit(compute)(params, *phase.place(batch)))


def write_for_peer(
    run: Run,
    params: FlatParams,
    batches: list[Batch],
    made: TrainBatches,
    args: argparse.Namespace,
) -> None:
    """Writes texts, windows, weights and settings."""
    assert run.tokens is not None
    config = run.config
    with np.errstate(divide="ignore"):
        expected_N = np.log(made.target_freq_N * args.batch_size).astype(np.float32)
    data = {
        "ids": run.tokens.ids,
        "offsets": run.tokens.offsets,
        "log_expected": expected_N,
    }
    for i, b in enumerate(batches):
        assert b.items is not None
        length = b.history_BxH.shape[1]
        # The peer needs the last target of a user too, which no history contains.
        (is_last,) = np.nonzero((b.position_P + 1) % length == 0)
        is_last = is_last[b.position_P[is_last] >= 0]
        user = b.position_P[is_last] // length
        window = np.pad(b.history_BxH, ((0, 0), (0, 1)))
        mask = np.pad(b.mask_BxH, ((0, 0), (0, 1)))
        window[user, -1], mask[user, -1] = b.targets_P[is_last], True
        data[f"window_{i}"], data[f"mask_{i}"] = b.items.items_U[window], mask
    np.savez(args.folder / "data.npz", allow_pickle=False, **data)
    towers = {p: np.asarray(x) for p, x in params.items() if "/encoder/" not in p}
    np.savez(args.folder / "weights.npz", allow_pickle=False, **towers)
    about = {
        "encoder": str(locate_encoder(config.text.encoder)),
        "width": config.item_tower.width,
        "history": config.data.history_length,
        "heads": config.user_tower.num_heads,
        "layers": config.user_tower.num_layers,
        "mlp_ratio": config.user_tower.mlp_ratio,
        "dropout": config.user_tower.dropout,
        "items": run.data.num_items,
        "num_targets": made.windows.max_targets,
        "trained_layers": args.layers[0] if args.layers[0] >= 0 else None,
        "lr": config.train.phases[0].lr,
        "skip_padding": args.skip_padding,
        "batches": BATCHES,
    }
    (args.folder / "about.json").write_text(json.dumps(about))


def main() -> None:
    """Runs both sides for every depth, prints Markdown rows and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="name or directory")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[2], help="trained layers; -1 is all"
    )
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument(
        "--skip_padding",
        action="store_true",
        help="the peer skips positions without an item",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="a PNG to write")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return work(args)
    name, found = Path(args.data).name, {}
    how = " without padded positions" if args.skip_padding else ""
    for depth in args.layers:
        goal = None if len(args.layers) > 1 else 3 if depth < 0 else 10
        layers = "all layers" if depth < 0 else f"top {depth} layers"
        one = ["--layers", str(depth)]
        with duel.workers("step", "torch_trainer", "torch", *one) as (ours, peer):
            print(f"ours: {ours.about}\npeer: {peer.about}", file=sys.stderr)
            np.testing.assert_allclose(
                ours.about["loss"], peer.about["loss"], rtol=1e-4
            )
            found[depth] = times = duel.duel(ours, peer, args.repeats)
        print(
            duel.row(
                f"one step, {layers}, {name}, {args.batch_size} users",
                f"{duel.spread(times.ours)} s",
                f"PyTorch trainer{how} {duel.spread(times.peer)} s",
                times.ratio,
                goal,
            ),
            flush=True,
        )
    if args.plot:
        draw(found, f"one step, {name}, {args.batch_size} users{how}", args.plot)


def draw(found: dict[int, duel.Times], title: str, path: Path) -> None:
    """Plots seconds by the number of trained layers."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 3.6))
    depths = [str(depth) if depth >= 0 else "all" for depth in found]
    for name, each in (
        ("PyTorch trainer", [times.peer for times in found.values()]),
        ("recjax", [times.ours for times in found.values()]),
    ):
        axes.plot(depths, [statistics.median(t) for t in each], "o-", label=name)
    axes.set_xlabel("trained layers of the encoder, from the top")
    axes.set_ylabel("seconds")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.set_title(title, fontsize=10)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
