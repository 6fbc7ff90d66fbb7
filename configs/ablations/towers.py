"""User towers over the same item vectors.

    python -m experiments.sweep --config=configs/ablations/towers.py --out=runs/towers

Claim: with full cross-entropy a causal transformer beats BERT4Rec (Klenitskiy and
Vasilev, RecSys 2023).
"""

from ml_collections import ConfigDict

from configs.ablations import reference


def get_config(point: str = "transformer") -> ConfigDict:
    """One row of the table."""
    return reference.make(point, sweep, item_tower__sources=("id", "text"))


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    add("transformer", {})
    add("transformer_absolute", {"user_tower.position": "absolute"})
    for name in ("mean", "additive", "gru", "cnn", "bert4rec", "graph"):
        add(name, {"user_tower.name": name})
