"""What an item is known by: its id, its text, or both.

    python -m experiments.sweep --config=configs/ablations/sources.py --out=runs/sources

Claim: ids beside the text do not help (Yuan et al., IDvs.MoRec, SIGIR 2023, table 7,
over encoders that are trained).
"""

from ml_collections import ConfigDict

from configs.ablations import reference


def get_config(point: str = "text") -> ConfigDict:
    """One row of the table."""
    return reference.make(point, sweep)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    both = {"item_tower.sources": ("id", "text")}
    add("text", {})
    add("id", {"item_tower.sources": ("id",)})
    add("both_sum", both)
    add("both_concat", {**both, "item_tower.combine": "concat"})
    add("both_gate", {**both, "item_tower.combine": "gate"})
