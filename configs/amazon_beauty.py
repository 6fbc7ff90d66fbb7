"""Amazon Beauty: a frozen encoder, fused with transition counts and text similarity.

    python -m recjax.main --config=configs/amazon_beauty.py --workdir=runs/beauty \
        --config.data.source=DIR/amazon-beauty

The directory must have the name `amazon-beauty` and contain `amazon-beauty.inter` and
`.item` in RecBole's atomic format: the 5-core data of 2014 that S3-Rec distributes,
with titles.

Half an hour to 50 minutes on one CPU core. Test HR@10 / NDCG@10, mean of seeds 0, 1 and
2 and their standard deviation: .1097 ± .0023 / .0659 ± .0012, fitted to the training
events only (experiments/headlines).
"""

from ml_collections import ConfigDict

from configs import data_sets
from recjax.config import base
from recjax.config.variants import Add, pick


def get_config(variant: str = "whole") -> ConfigDict:
    """Leave-one-out, seen items masked, history of 20, frozen encoder.

    Args:
      variant: name of a variant of `sweep`.
    """
    config = base.get_config()
    data_sets.amazon_beauty(config)
    config.text.whiten = True
    config.item_tower.width = 128
    config.head.fusion = ("transitions", "text")
    config.eval.baselines = ("popularity", "transitions", "text")
    config.train.phases = (
        base.phase("towers", epochs=20, lr=1e-3, ema=0.98, patience=3),
    )
    return pick(config, variant, sweep)


def sweep(add: Add) -> None:
    """Adds the complete model, and one without score fusion."""
    add("whole", {})
    add("no_fusion", {"head.fusion": ()})
