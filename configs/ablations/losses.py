"""Losses and negative sampling, with and without the logQ correction.

    python -m experiments.sweep --config=configs/ablations/losses.py --out=runs/losses

Claims: full cross-entropy beats a few negatives (Klenitskiy and Vasilev, RecSys 2023);
gBCE with many negatives is as good (Petrov and Macdonald, gSASRec, RecSys 2023);
in-batch negatives without logQ fail (blondered/transformer_benchmark).

Seven minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: softmax .0930, in_batch .0937 and .0300 without logQ (experiments/losses).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config.variants import Add


def get_config(variant: str = "softmax") -> ConfigDict:
    """Returns the config of a variant."""
    return reference.make(variant, sweep, item_tower__sources=("id",))


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("softmax", {})
    add("bce", {"loss.name": "bce"})
    add("gbce", {"loss.name": "gbce", "loss.negatives_per_positive": 256})
    for negatives in ("in_batch", "uniform", "popularity", "mixed"):
        sampled = {"loss.negatives": negatives, "loss.num_negatives": 256}
        add(negatives, sampled)
        add(f"{negatives}_plain", {**sampled, "loss.logq": False})
    sampled = {"loss.negatives": "uniform", "loss.num_negatives": 256}
    add("bce_uniform", {**sampled, "loss.name": "bce"})
    add(
        "gbce_uniform",
        {**sampled, "loss.name": "gbce", "loss.negatives_per_positive": 256},
    )
