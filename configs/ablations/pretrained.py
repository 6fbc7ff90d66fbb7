"""Pretrained weights against random ones, frozen and trained.

    python -m experiments.sweep --config=configs/ablations/pretrained.py \
        --out=runs/pretrained

Claim: pretrained weights help, least on small data (Yuan et al., IDvs.MoRec, SIGIR
2023, table 4, HR@10 .1778 -> .1823).
"""

from ml_collections import ConfigDict

from configs.ablations import freezing, reference
from recjax.config import base


def get_config(point: str = "pretrained") -> ConfigDict:
    """One row of the table; the three phases are those of `freezing`."""
    return reference.make(point, sweep, tuned=True)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    frozen = freezing.phases(base.freeze("all"))
    top = base.freeze(reference.TOP, layers=reference.LAYERS, encoder=reference.SHARE)
    tuned = freezing.phases(top)
    for name, pretrained in (("pretrained", True), ("random", False)):
        weights = {"text.pretrained": pretrained}
        add(name, {**weights, "train.phases": frozen})
        add(f"{name}_top2", {**weights, "train.phases": tuned})
