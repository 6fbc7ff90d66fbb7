"""Layers between frozen text vectors and the towers: whitening, an MLP.

    python -m experiments.sweep --config=configs/ablations/vectors.py --out=runs/vectors

Claims: whitening helps (Zhang et al., WhitenRec, 2024); eight layers over frozen
vectors make up for much of what training the encoder gives (Yuan et al., IDvs.MoRec,
SIGIR 2023, table 5, MIND HR@10 .1393 frozen, .1666 with an MLP, .1823 end to end).

Four minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: plain .0914, whitened .0933, mlp2 .1027 (experiments/vectors).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config.variants import Add


def get_config(variant: str = "plain") -> ConfigDict:
    """Returns the config of a variant."""
    return reference.make(variant, sweep)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("plain", {})
    add("whitened", {"text.whiten": True})
    for layers in (1, 2, 8):
        add(f"mlp{layers}", {"item_tower.mlp_layers": layers})
    add("whitened_mlp2", {"text.whiten": True, "item_tower.mlp_layers": 2})
