"""Parts of the user tower over the zero-shot start: filter, times and gates.

    python -m experiments.sweep --config=configs/ablations/attention.py \
        --out=runs/attention

Question: what does each part add to plain attention, for warm and for new targets? The
model is that of `zero_shot.py`, with ids and texts. Amazon Industrial has no times.
"""

from ml_collections import ConfigDict

from configs.ablations import reference, zero_shot
from recjax.config.variants import Add


def get_config(variant: str = "attention") -> ConfigDict:
    """Returns the config of a variant."""
    prepare = zero_shot.prepare
    return reference.make(variant, sweep, prepare=prepare, data__cold_items=0.1)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("attention", {})
    add("filter", {"user_tower.filter_share": 0.5})
    add("time", {"user_tower.time": True})
    add("hstu", {"user_tower.name": "hstu"})
    add("hstu_time", {"user_tower.name": "hstu", "user_tower.time": True})
