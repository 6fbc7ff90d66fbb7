"""Items represented by id, by text, or by both.

    python -m experiments.sweep --config=configs/ablations/sources.py --out=runs/sources

Claim: ids in addition to the text do not help (Yuan et al., IDvs.MoRec, SIGIR 2023,
table 7, with encoders that are trained).

Three minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: text .0914, id .0930, both .106 to .110 (experiments/sources).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config.variants import Add


def get_config(variant: str = "text") -> ConfigDict:
    """Returns the config of a variant."""
    return reference.make(variant, sweep)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    both = {"item_tower.sources": ("id", "text")}
    add("text", {})
    add("id", {"item_tower.sources": ("id",)})
    add("both_sum", both)
    add("both_concat", {**both, "item_tower.combine": "concat"})
    add("both_gate", {**both, "item_tower.combine": "gate"})
