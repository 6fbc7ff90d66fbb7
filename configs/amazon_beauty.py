"""Amazon Beauty: a frozen encoder beside what counting remembers.

    python -m recjax.main --config=configs/amazon_beauty.py --workdir=runs/beauty \
        --config.data.source=DIR/amazon-beauty

DIR/amazon-beauty, so called, holds `amazon-beauty.inter` and `.item` in RecBole's
atomic format: the 5-core set of 2014 that S3-Rec distributes, with titles.

Half an hour to 50 minutes on one CPU core. Test HR@10 / NDCG@10, mean of seeds 0, 1 and
2 and their standard deviation: .1097 ± .0023 / .0659 ± .0012, fitted on training alone
(experiments/headlines).
"""

from ml_collections import ConfigDict

from configs import data_sets
from configs.ablations import reference
from recjax.config import base


def get_config(point: str = "whole") -> ConfigDict:
    """Leave-one-out, seen items masked, history of 20, frozen encoder.

    Args:
      point: what is left out or put in, of `sweep`.
    """
    c = base.get_config()
    data_sets.amazon_beauty(c)
    c.text.whiten = True
    c.item_tower.width = 128
    c.head.fusion = ("transitions", "text")
    c.eval.baselines = ("popularity", "transitions", "text")
    c.train.phases = (base.phase("towers", epochs=20, lr=1e-3, ema=0.98, patience=3),)
    return reference.pick(c, point, sweep)


def sweep(add: reference.Add) -> None:
    """The whole, and what parts of it are good for."""
    add("whole", {})
    add("no_fusion", {"head.fusion": ()})
