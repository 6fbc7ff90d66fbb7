"""A model that starts as the zero-shot recommender, and what each of its parts does.

    python -m experiments.sweep --config=configs/ablations/zero_shot.py \
        --out=runs/zero_shot

Question: does a model that begins with what the encoder knows, and learns everything
else from zero, keep new and cold items while it learns warm ones? A tenth of the items
is removed from all histories and from training.
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from configs.recipes import ENCODER, RANDOM_START, TEXT_ONLY
from recjax.config import base
from recjax.config.variants import Add

TOWERS = base.phase("towers", epochs=8, lr=1e-3, schedule="linear", patience=0)


def get_config(variant: str = "whole") -> ConfigDict:
    """Returns the config of a variant: ids and texts, and a small transformer."""
    return reference.make(variant, sweep, prepare=prepare, data__cold_items=0.1)


def prepare(config: ConfigDict) -> None:
    """Sets what all variants share."""
    config.item_tower.sources = ("id", "text")
    base.start_zero_shot(config)
    config.user_tower.dropout = 0.5
    config.train.phases = (TOWERS,)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("whole", {})
    add("random_start", RANDOM_START)
    add("own_moments", {"optim.shared_moment": ()})
    add("no_event_bias", {"head.event_bias": ()})
    add("id_dropout", {"item_tower.id_dropout": 0.3})
    add("filter", {"user_tower.filter_share": 0.5})
    add("text", TEXT_ONLY)
    add("encoder", {"train.phases": (ENCODER, TOWERS)})
    add("text_encoder", {**TEXT_ONLY, "train.phases": (ENCODER, TOWERS)})
