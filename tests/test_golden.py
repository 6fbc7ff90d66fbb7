"""Small training runs whose results are pinned, on the main paths through the code.

`golden.json` holds what each run in `RUNS` gave: the loss of every step, the metrics,
and digests of all ranks and of the final parameters. It is rewritten only by

    RECJAX_GOLDEN=write pytest tests/test_golden.py

(without `-n` and `-k`), which is right after a change that is meant to alter results.

The last bits of a float depend on the processor, the libraries and XLA's flags, so the
file names these as its platform. They do not depend on the number of cores. On the same
platform everything has to be equal to the last bit. On another one names, shapes and
test rows have to be equal, and losses and metrics close (see `check_close`).
`RECJAX_GOLDEN=exact` also fails where the platform is another one.
"""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recjax.checkpointing.checkpoints import read_params
from recjax.config import base
from recjax.models.heads import FUSION_WEIGHTS
from recjax.run import train
from recjax.runtime.compile_cache import platform_key
from tests import synthetic
from tests.conftest import TINY_BERT, records

# --- Names of config keys -------------------------------------------------------------

COMMON = {
    "data.history_length": 6,
    "text.encoder": str(TINY_BERT),
    "text.template": "{title} {genre}",
    "text.title": "{title}",
    "text.max_tokens": 12,
    "text.row_tokens": 16,
    "text.rows_per_batch": 8,
    "text.cache_disk_gib": 0.0,
    "item_tower.width": 8,
    "user_tower.num_layers": 1,
    "train.batch_size": 16,
    "train.checkpoint_seconds": 1e9,
    "eval.batch_size": 16,
    "eval.ks": (1, 10),
    "eval.bootstrap_samples": 20,
    "eval.baselines": (),
    "report.every_steps": 1,
    "report.metrics": ("hr@10", "ndcg@10"),
}


def phase(name, **changes):
    few = {"epochs": 2, "lr": 1e-2, "patience": 0, "keep": "last"}
    return base.phase(name, **{**few, **changes})


RUNS = {
    # Frozen text encoder, then its top layer, with averaged weights.
    "two_phases": {
        "item_tower.sources": ("id", "text"),
        "loss.smoothing": 0.1,
        "data.reverse": 0.3,
        "eval.baselines": (
            "random",
            "popularity",
            "recent_popularity",
            "transitions",
            "repeat_transitions",
            "item_knn",
            "ease",
            "ials",
            "text",
        ),
        "train.phases": (
            phase("towers", keep="best"),
            phase("top", ema=0.5, lr_mults=base.freeze(1, layers=3, encoder=0.5)),
        ),
    },
    "sampled_negatives": {
        "data.split": "ratio",
        "data.cold_items": 0.1,
        "item_tower.sources": ("id", "text"),
        "item_tower.combine": "concat",
        "user_tower.name": "gru",
        "loss.name": "gbce",
        "loss.negatives_per_positive": 4,
        "loss.num_negatives": 12,
        "loss.logq": True,
        "train.phases": (
            phase("mixed", negatives="mixed"),
            phase("popular", negatives="popularity", schedule="linear"),
        ),
    },
    # The table of stale vectors is encoded again within an epoch.
    "stale_negatives": {
        "data.split": "time",
        "item_tower.pooling": "cls",
        "user_tower.position": "absolute",
        "loss.negatives": "stale",
        "loss.refresh_steps": 2,
        "loss.chunk": 5,
        "train.phases": (
            phase(
                "all",
                epoch_steps=3,
                schedule="cosine",
                warmup=0.3,
                lr_mults=base.freeze("none"),
            ),
        ),
    },
    "bert4rec": {
        "item_tower.sources": ("id",),
        "user_tower.name": "bert4rec",
        "user_tower.mask_share": 0.4,
        "loss.name": "bce",
        "loss.negatives": "uniform",
        "loss.num_negatives": 8,
        "eval.candidates": 11,
        "train.phases": (phase("towers"),),
    },
    "graph": {
        "data.windows": "last",
        "item_tower.sources": ("id", "text"),
        "user_tower.name": "graph",
        "user_tower.num_layers": 2,
        "optim.name": "adafactor",
        "train.phases": (phase("towers", epochs=3),),
    },
    "score_fusion": {
        "item_tower.sources": ("id", "text"),
        "text.whiten": True,
        "user_tower.repeats": True,
        "head.fusion": ("transitions", "text"),
        "head.fusion_weights": (0.0, 0.5, 2.0),
        "eval.baselines": ("transitions", "text"),
        "train.phases": (phase("towers", ema=0.5),),
    },
    "fixed_split": {
        "data.split": "fixed",
        "data.time": "",
        "eval.mask_seen": False,
        "item_tower.sources": ("id",),
        "user_tower.name": "cnn",
        "head.name": "two_tower",
        "loss.negatives": "in_batch",
        "optim.name": "sgd",
        "eval.baselines": ("popularity", "recent_popularity", "transitions"),
        "train.phases": (phase("towers"),),
    },
    "lora": {
        "data.rating": "rating",
        "eval.like_threshold": 3.0,
        "text.lora_rank": 2,
        "text.remat_rows": 8,
        "item_tower.sources": ("id", "text"),
        "item_tower.combine": "gate",
        "item_tower.pooling": "attention",
        "item_tower.mlp_layers": 1,
        "user_tower.name": "additive",
        "train.phases": (
            phase("towers", epochs=1),
            phase("lora", epochs=1, lr_mults=base.freeze("lora")),
        ),
    },
}


def make_config(name, folder):
    changes = {**COMMON, "data.source": str(folder), **RUNS[name]}
    config = base.get_config().copy_and_resolve_references().unlock()
    config.update_from_flattened_dict(changes)
    return config.lock()


# --- Names in the results; the names on the right are those of golden.json ------------

LOSS = "train/loss"
VALIDATION = "valid/{}"  # of a metric
TEST = "test"
REPORTS = ("baselines", "zero_shot", "phases")  # their numbers, in this order
COLUMNS = {"zero_shot": "zero_shot"}  # of the ranks; others keep their names
PARAMS = {
    FUSION_WEIGHTS: "fusion/weights",
    "users/attention_bias/bias": "users/age/bias",
}  # paths; others keep their names
METRICS = ("hr@1", "ndcg@10", "mrr@10", "auc")
NOT_RANKS = ("row", "user", "events")  # other columns of the ranks' table


# --- The data -------------------------------------------------------------------------


def write_data(folder):
    """Writes synthetic files with noise, on which every system ranks differently.

    The next item of a user follows from the last one or is drawn from a skewed
    popularity. One of the 64 users has too few events for a test row.
    """
    synthetic.write_atomic(folder, num_users=64)  # its items and users stay
    rng = np.random.default_rng(0)
    popularity_N = 1 / np.arange(1, 25)
    popularity_N /= popularity_N.sum()
    events = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    splits = {"train": [header], "valid": [header], "test": [header]}
    for u in range(64):
        length = 2 if u == 63 else int(rng.integers(5, 13))
        walk = [int(rng.integers(24))]
        while len(walk) < length:
            drawn = int(rng.choice(24, p=popularity_N))
            follows = rng.random() < 0.6 or drawn == walk[-1]
            walk.append((walk[-1] + 4) % 24 if follows else drawn)
        for j, i in enumerate(walk):
            time = 1000 + 3 * u + j // 2  # two events at a time
            events.append(f"u{u}\ti{i}\t{rng.integers(1, 6)}\t{time}")
        for j in range(1, length):
            part = {length - 1: "test", length - 2: "valid"}.get(j, "train")
            history = " ".join(f"i{i}" for i in walk[:j])
            splits[part].append(f"u{u}\t{history}\ti{walk[j]}")
    (folder / f"{folder.name}.inter").write_text("\n".join(events) + "\n")
    for part, lines in splits.items():
        path = folder / f"{folder.name}.{part}.inter"
        path.write_text("\n".join(lines) + "\n")
    return folder


# --- What is pinned -------------------------------------------------------------------

GOLDEN = Path(__file__).parent / "golden.json"
MODES = ("", "write", "exact")
NUM_LOSSES = 5  # compared on another platform, before differences grow
LOSS_TOLERANCE = 1e-4  # relative
METRIC_TOLERANCE = 0.02  # absolute: one test row


def platform():
    """Identifies everything that decides the last bits of a result."""
    libraries = ("jax", "jaxlib", "numpy", "scipy")
    flags = dict.fromkeys(os.environ["XLA_FLAGS"].split())  # workers have them twice
    return {
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "processor": digest(platform_key())[:16],
        "flags": " ".join(flags),
    }


def measure(name, folder, workdir):
    """Executes one of `RUNS` and returns the pinned part of its results as JSON."""
    train.run(make_config(name, folder), str(workdir))
    final = json.loads((workdir / "results.json").read_text())
    reports = list(numbers([final.get(report) for report in REPORTS]))
    scalars = records(workdir)
    table = pl.read_parquet(workdir / "ranks.parquet")
    params = read_params(workdir)
    params = {PARAMS.get(path, path): np.asarray(x) for path, x in params.items()}
    validation = {metric: VALIDATION.format(metric) for metric in METRICS}
    return {
        "losses": {str(x["step"]): x[LOSS] for x in scalars if LOSS in x},
        "validation": {
            metric: [x[tag] for x in scalars if tag in x]
            for metric, tag in validation.items()
        },
        "test": {metric: final[TEST][metric] for metric in METRICS},
        "reports": digest(json.dumps(reports)),
        "rows": digest(table.select(NOT_RANKS).write_csv()),
        "ranks": {
            COLUMNS.get(column, column): summarize(table[column].to_numpy())
            for column in table.columns
            if column not in NOT_RANKS
        },
        "params": {path: describe(x) for path, x in sorted(params.items())},
    }


def summarize(rank_R):
    """Digest of the ranks, and their metrics for the comparison across platforms."""
    assert rank_R.dtype == np.int32
    near_R = rank_R <= 10
    return {
        "sha256": digest(rank_R.astype("<i4").tobytes()),
        "hr@10": float(near_R.mean()),
        "ndcg@10": float((near_R / np.log2(rank_R + 1)).mean()),
    }


def describe(x):
    """Type and shape of an array, and a digest of its bytes as the last word."""
    return f"{x.dtype} {list(x.shape)} {digest(x.tobytes())[:16]}"


def digest(content):
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(raw).hexdigest()


def numbers(tree):
    """Yields the numbers of a report in order, without keys and texts."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from numbers(each)
    elif not isinstance(tree, str):
        yield tree


# --- The tests ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("golden") / "noisy")


@pytest.fixture(scope="module")
def mode():
    mode = os.environ.get("RECJAX_GOLDEN", "")
    assert mode in MODES, f"RECJAX_GOLDEN: {mode!r} is not one of {MODES}"
    return mode


@pytest.fixture(scope="module")
def golden(mode):
    """The content of the file, or in write mode an empty one for the tests to fill."""
    if mode != "write":
        yield json.loads(GOLDEN.read_text())
        return
    found = {"platform": platform(), "runs": {}}
    yield found
    assert found["runs"].keys() == RUNS.keys(), "only all runs together are written"
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


@pytest.mark.parametrize("name", RUNS)
def test_run_gives_the_committed_values(name, mode, golden, data, tmp_path):
    found = measure(name, data, tmp_path)
    if mode == "write":
        golden["runs"][name] = found
        return
    want, here = golden["runs"][name], platform()
    assert mode != "exact" or here == golden["platform"]
    if here != golden["platform"]:
        check_close(found, want)
        return
    assert found.keys() == want.keys()
    for part in want:  # in the order of a run: the first difference explains the others
        assert found[part] == want[part], part


def test_every_run_has_committed_values(mode, golden):
    assert mode == "write" or golden["runs"].keys() == RUNS.keys()


def check_close(found, want):
    """Compares with a run on another platform.

    Without AVX and FMA, losses moved by less than 1e-5 and metrics by less than 0.001.
    A metric is a mean of steps: one test row of 51 or more may fall on the other side.
    """
    assert found.keys() == want.keys()
    assert found["rows"] == want["rows"]
    assert shapes(found) == shapes(want)
    for part in ("losses", "validation", "test", "ranks"):
        assert found[part].keys() == want[part].keys(), part
    losses, wanted = (list(x["losses"].values())[:NUM_LOSSES] for x in (found, want))
    assert losses == pytest.approx(wanted, rel=LOSS_TOLERANCE)
    assert metrics(found) == pytest.approx(metrics(want), abs=METRIC_TOLERANCE)


def shapes(run):
    return {path: x.rpartition(" ")[0] for path, x in run["params"].items()}


def metrics(run):
    """The metrics of all ranks and of the test, by name."""
    ranks = {
        f"{column} {metric}": each[metric]
        for column, each in run["ranks"].items()
        for metric in ("hr@10", "ndcg@10")
    }
    return ranks | {metric: x["value"] for metric, x in run["test"].items()}
