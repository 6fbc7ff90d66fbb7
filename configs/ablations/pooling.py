"""Which of a text's token states an item is known by; the encoder is frozen.

    python -m experiments.sweep --config=configs/ablations/pooling.py --out=runs/pooling

Claim: attention pooling > mean > [CLS] (Wu et al., PLM-NR, SIGIR 2021).
"""

from ml_collections import ConfigDict

from configs.ablations import reference


def get_config(point: str = "mean") -> ConfigDict:
    """One row of the table."""
    return reference.make(point, sweep)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    add("mean", {})
    add("cls", {"item_tower.pooling": "cls"})
    add("attention", {"item_tower.pooling": "attention"})
    add("pooler", {"item_tower.pooling": "pooler"})
