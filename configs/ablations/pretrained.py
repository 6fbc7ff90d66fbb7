"""Pretrained weights against random ones, frozen and trained.

    python -m experiments.sweep --config=configs/ablations/pretrained.py \
        --out=runs/pretrained

Claim: pretrained weights help, least on small data (Yuan et al., IDvs.MoRec, SIGIR
2023, table 4, HR@10 .1778 -> .1823).

Four minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: pretrained .0741, random .0481, both frozen (experiments/pretrained).
"""

from ml_collections import ConfigDict

from configs.ablations import freezing, reference
from recjax.config import base
from recjax.config.variants import Add


def get_config(variant: str = "pretrained") -> ConfigDict:
    """Returns the config of a variant, with the three phases of `freezing`."""
    return reference.make(variant, sweep, tuned=True)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    frozen = freezing.phases(base.freeze("all"))
    top = base.freeze(reference.TOP, layers=reference.LAYERS, encoder=reference.SHARE)
    tuned = freezing.phases(top)
    for name, pretrained in (("pretrained", True), ("random", False)):
        weights = {"text.pretrained": pretrained}
        add(name, {**weights, "train.phases": frozen})
        add(f"{name}_top2", {**weights, "train.phases": tuned})
