"""Losses beside the main one, each alone and all together.

    python -m experiments.sweep --config=configs/ablations/objectives.py \
        --out=runs/objectives

Question: does a softmax over items gain from predicting the category of the next item,
from contrasts of items or of histories, or from likes? All of them together have fixed
weights, or learned ones (Kendall, Gal and Cipolla, 2018).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config.variants import Add

WEIGHT = 0.1  # of each auxiliary loss, where it is fixed
OBJECTIVES = ("category", "contrast", "duorec")
LIKES = "rating"  # only of data sets with ratings


def get_config(variant: str = "main") -> ConfigDict:
    """Returns the config of a variant: ids and texts."""
    return reference.make(variant, sweep, item_tower__sources=("id", "text"))


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("main", {})
    for name in (*OBJECTIVES, LIKES):
        add(name, fixed(name))
    add("all_fixed", fixed(*OBJECTIVES, LIKES))
    add("all_learned", {"loss.auxiliary": (*OBJECTIVES, LIKES)})


def fixed(*names: str) -> dict[str, tuple[object, ...]]:
    """Returns the keys of auxiliary losses with fixed weights."""
    weights = (WEIGHT,) * len(names)
    return {"loss.auxiliary": names, "loss.auxiliary_weights": weights}
