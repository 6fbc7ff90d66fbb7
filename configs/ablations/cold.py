"""Items that are new at the test, known by id, by text or by both.

    python -m experiments.sweep --config=configs/ablations/cold.py --out=runs/cold

Claim: text wins where items are cold (Yuan et al., IDvs.MoRec, SIGIR 2023, table 9,
.0306 against .00004). A tenth of the items is out of all histories and of training.
"""

from ml_collections import ConfigDict

from configs.ablations import reference


def get_config(point: str = "text") -> ConfigDict:
    """One row of the table."""
    return reference.make(point, sweep, data__cold_items=0.1)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    add("text", {})
    add("id", {"item_tower.sources": ("id",)})
    add("both", {"item_tower.sources": ("id", "text")})
