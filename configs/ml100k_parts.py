"""MovieLens 100K by id, with one part exchanged: a user tower, a loss, negatives.

    python -m recjax.main --config=configs/ml100k_parts.py:gru --workdir=runs/gru

The part after the colon is a key of `PARTS`. One to two minutes a run on two CPU cores;
`experiments/ml100k/parts.py` runs them all.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base

SAMPLED = {"loss.negatives": "uniform", "loss.num_negatives": 256}
PARTS: dict[str, dict[str, Any]] = {
    "transformer": {},
    "mean": {"user_tower.name": "mean"},
    "additive": {"user_tower.name": "additive"},
    "gru": {"user_tower.name": "gru"},
    "cnn": {"user_tower.name": "cnn"},
    "bert4rec": {"user_tower.name": "bert4rec"},
    "graph": {"user_tower.name": "graph"},
    "two_tower": {"head.name": "two_tower", "head.temperature": 0.1},
    "bce": {"loss.name": "bce"},
    "gbce": {"loss.name": "gbce", "loss.k": 256},
    "rating": {"loss.name": "rating"},
    "softmax_uniform": SAMPLED,
    "softmax_uniform_plain": {**SAMPLED, "loss.logq": False},
    "softmax_popularity": {**SAMPLED, "loss.negatives": "popularity"},
    "softmax_in_batch": {"loss.negatives": "in_batch"},
    "softmax_in_batch_plain": {"loss.negatives": "in_batch", "loss.logq": False},
    "softmax_mixed": {**SAMPLED, "loss.negatives": "mixed"},
    "bce_uniform": {**SAMPLED, "loss.name": "bce"},
    "gbce_uniform": {**SAMPLED, "loss.name": "gbce", "loss.k": 256},
    "memory": {"head.memory": ("transitions",)},
}
BASELINES = (
    "random",
    "popularity",
    "recent_popularity",
    "transitions",
    "item_knn",
    "ease",
    "ials",
    "bpr_mf",
)


def get_config(part: str = "transformer") -> ConfigDict:
    """Leave-one-out, seen items masked, history of 50; all baselines beside the first.

    Args:
      part: which one is exchanged.
    """
    if part not in PARTS:
        raise ValueError(f"{part!r} is not one of {', '.join(PARTS)}")
    c = base.get_config()
    c.data.rating, c.data.user_table = "rating", True
    c.eval.like_threshold = 4.0
    c.item_tower.sources = ("id",)
    c.user_tower.dropout = 0.3
    c.train.batch_size = 128
    c.train.phases = (base.phase("towers", epochs=30, lr=2e-3, ema=0.98, patience=8),)
    c.eval.baselines = ("popularity",) if PARTS[part] else BASELINES
    c.update_from_flattened_dict(PARTS[part])
    return c
