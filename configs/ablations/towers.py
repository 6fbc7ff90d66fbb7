"""User towers over the same item vectors.

    python -m experiments.sweep --config=configs/ablations/towers.py --out=runs/towers

Claim: with full cross-entropy a causal transformer beats BERT4Rec (Klenitskiy and
Vasilev, RecSys 2023).

Four minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: transformer .1100, gru .1171, bert4rec .0910 (experiments/towers).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config.variants import Add


def get_config(variant: str = "transformer") -> ConfigDict:
    """Returns the config of a variant."""
    return reference.make(variant, sweep, item_tower__sources=("id", "text"))


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("transformer", {})
    add("transformer_absolute", {"user_tower.position": "absolute"})
    for name in ("mean", "additive", "gru", "cnn", "bert4rec", "graph"):
        add(name, {"user_tower.name": name})
