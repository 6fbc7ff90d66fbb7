"""What lies between frozen text vectors and the towers: whitening, perceptrons.

    python -m experiments.sweep --config=configs/ablations/vectors.py --out=runs/vectors

Claims: whitening helps (Zhang et al., WhitenRec, 2024); eight layers over frozen
vectors make up for much of what training the encoder gives (Yuan et al., IDvs.MoRec,
SIGIR 2023, table 5, MIND HR@10 .1393 frozen, .1666 with a perceptron, .1823 end to
end).
"""

from ml_collections import ConfigDict

from configs.ablations import reference


def get_config(point: str = "plain") -> ConfigDict:
    """One row of the table."""
    return reference.make(point, sweep)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    add("plain", {})
    add("whitened", {"text.whiten": True})
    for layers in (1, 2, 8):
        add(f"mlp{layers}", {"item_tower.mlp_layers": layers})
    add("whitened_mlp2", {"text.whiten": True, "item_tower.mlp_layers": 2})
