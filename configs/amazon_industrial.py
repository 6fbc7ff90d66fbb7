"""Amazon Industrial and Scientific: a frozen encoder, fused with transition counts.

    python -m recjax.main --config=configs/amazon_industrial.py --workdir=runs/amazon \
        --config.data.source=DIR/amazon-industrial

The directory must have the name `amazon-industrial` and contain
`amazon-industrial.{train,valid,test}.inter` and `.item` in RecBole's atomic format: the
data of 2018 as MiniOneRec splits them, by global time, with histories of at most ten
items.

One and a half to five minutes on one CPU core. Test HR@5 / NDCG@5 / HR@10 /
NDCG@10, mean of seeds 0, 1 and 2 and their standard deviation: .1355 ± .0011 /
.1102 ± .0002 / .1645 ± .0023 / .1195 ± .0006 (experiments/headlines).
"""

from ml_collections import ConfigDict

from configs import data_sets
from recjax.config import base
from recjax.config.variants import Add, pick


def get_config(variant: str = "whole") -> ConfigDict:
    """Fixed splits, seen items not masked, history of 10, frozen encoder.

    Args:
      variant: name of a variant of `sweep`.
    """
    config = base.get_config()
    data_sets.amazon_industrial(config)
    config.text.whiten = True
    # Text only: the fused transition counts already know items by id.
    config.item_tower.width = 128
    config.user_tower.repeats = True
    config.head.fusion = ("repeat_transitions", "text")
    config.eval.baselines = ("popularity", "transitions", "repeat_transitions", "text")
    config.train.phases = (
        base.phase("towers", epochs=20, lr=1e-3, ema=0.98, patience=6),
    )
    return pick(config, variant, sweep)


def sweep(add: Add) -> None:
    """Adds the complete model, and variants that change one part of it."""
    add("whole", {})
    add("ids_too", {"item_tower.sources": ("id", "text")})
    add("not_whitened", {"text.whiten": False})
    add("plain_transitions", {"head.fusion": ("transitions", "text")})
    add("no_text_fusion", {"head.fusion": ("repeat_transitions",)})
    add("no_fusion", {"head.fusion": ()})
