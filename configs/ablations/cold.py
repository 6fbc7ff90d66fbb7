"""Cold items, represented by id, by text or by both.

    python -m experiments.sweep --config=configs/ablations/cold.py --out=runs/cold

Claim: text wins on cold items (Yuan et al., IDvs.MoRec, SIGIR 2023, table 9, .0306
against .00004). A tenth of the items is removed from all histories and from training.

Two minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: text .0667, both .0440, id .0000 (experiments/cold).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config.variants import Add


def get_config(variant: str = "text") -> ConfigDict:
    """Returns the config of a variant."""
    return reference.make(variant, sweep, data__cold_items=0.1)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("text", {})
    add("id", {"item_tower.sources": ("id",)})
    add("both", {"item_tower.sources": ("id", "text")})
