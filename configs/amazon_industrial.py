"""Amazon Industrial and Scientific: a frozen encoder beside what counting remembers.

    python -m recjax.main --config=configs/amazon_industrial.py --workdir=runs/amazon \
        --config.data.source=DIR/amazon-industrial

DIR/amazon-industrial, so called, holds `amazon-industrial.{train,valid,test}.inter` and
`.item` in RecBole's atomic format: the set of 2018 as MiniOneRec splits it, by global
time, with histories of at most ten items.

One and a half to five minutes on one CPU core. Test HR@5 / NDCG@5 / HR@10 /
NDCG@10, mean of seeds 0, 1 and 2 and their standard deviation: .1355 ± .0011 /
.1102 ± .0002 / .1645 ± .0023 / .1195 ± .0006 (experiments/headlines).
"""

from ml_collections import ConfigDict

from configs import data_sets
from configs.ablations import reference
from recjax.config import base


def get_config(point: str = "whole") -> ConfigDict:
    """Fixed splits, seen items not masked, history of 10, frozen encoder.

    Args:
      point: what is left out or put in, of `sweep`.
    """
    c = base.get_config()
    data_sets.amazon_industrial(c)
    c.text.whiten = True
    c.item_tower.width = 128  # by text alone: the memory knows items by id already
    c.user_tower.repeats = True
    c.head.fusion = ("repeat_transitions", "text")
    c.eval.baselines = ("popularity", "transitions", "repeat_transitions", "text")
    c.train.phases = (base.phase("towers", epochs=20, lr=1e-3, ema=0.98, patience=6),)
    return reference.pick(c, point, sweep)


def sweep(add: reference.Add) -> None:
    """The whole, and what parts of it are good for."""
    add("whole", {})
    add("ids_too", {"item_tower.sources": ("id", "text")})
    add("not_whitened", {"text.whiten": False})
    add("plain_transitions", {"head.fusion": ("transitions", "text")})
    add("no_text_fusion", {"head.fusion": ("repeat_transitions",)})
    add("no_fusion", {"head.fusion": ()})
