"""Amazon Industrial and Scientific: ids and a frozen encoder, fused with baselines.

    python -m recjax.main --config=configs/amazon_industrial.py --workdir=runs/amazon \
        --config.data.source=DIR/amazon-industrial

The directory must have the name `amazon-industrial` and contain
`amazon-industrial.{train,valid,test}.inter` and `.item` in RecBole's atomic format: the
data of 2018 as MiniOneRec splits them, by global time, with histories of at most ten
items.

Two to three minutes on two CPU cores. Test HR@5 / NDCG@5 / HR@10 / NDCG@10, mean of
seeds 0, 1 and 2 and their standard deviation: .1449 ± .0005 / .1185 ± .0005 /
.1791 ± .0017 / .1295 ± .0010 (experiments/headlines).
"""

from ml_collections import ConfigDict

from configs import data_sets
from configs.recipes import TEXT_ONLY
from recjax.config import base
from recjax.config.variants import Add, pick


def get_config(variant: str = "whole") -> ConfigDict:
    """Fixed splits, seen items not masked, history of 10, ids and texts.

    Args:
      variant: name of a variant of `sweep`.
    """
    config = base.get_config()
    data_sets.amazon_industrial(config)
    config.item_tower.sources = ("id", "text")
    base.start_zero_shot(config)
    config.user_tower.dropout = 0.5
    config.user_tower.repeats = True
    config.head.fusion = ("auto",)
    config.eval.baselines = ("popularity", "transitions", "repeat_transitions", "ease")
    config.train.phases = (
        base.phase("towers", epochs=6, lr=1e-3, ema=0.98, patience=3),
    )
    return pick(config, variant, sweep)


def sweep(add: Add) -> None:
    """Adds the complete model, and variants without some parts of it."""
    add("whole", {})
    add("no_fusion", {"head.fusion": ()})
    add("no_seen_bias", {"head.fusion": (), "head.seen_bias": ()})
    add("text_only", {"head.fusion": (), **TEXT_ONLY})
