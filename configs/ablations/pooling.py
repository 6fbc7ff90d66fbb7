"""Ways to pool the token states of a text into an item vector; frozen encoder.

    python -m experiments.sweep --config=configs/ablations/pooling.py --out=runs/pooling

Claim: attention pooling > mean > [CLS] (Wu et al., PLM-NR, SIGIR 2021).

Three minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: attention .0950, mean .0914, cls .0889, pooler .0856 (experiments/pooling).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config.variants import Add


def get_config(variant: str = "mean") -> ConfigDict:
    """Returns the config of a variant."""
    return reference.make(variant, sweep)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("mean", {})
    add("cls", {"item_tower.pooling": "cls"})
    add("attention", {"item_tower.pooling": "attention"})
    add("pooler", {"item_tower.pooling": "pooler"})
