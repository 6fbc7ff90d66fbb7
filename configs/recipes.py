"""Phases and changes that configs of models with a zero-shot start share."""

from recjax.config import base
from recjax.config.variants import Changes

# The top layers of the encoder learn from behaviour, before the towers do.
ENCODER = base.phase(
    "encoder",
    epochs=4,
    epoch_steps=30,
    batch_size=128,
    negatives="in_batch",
    lr=1e-4,
    schedule="linear",
    warmup=0.1,
    patience=0,
    lr_mults=base.tune_encoder(2, layers=6),
)
# What a model without the zero-shot start has, see `base.start_zero_shot`.
RANDOM_START: Changes = {
    "item_tower.init": "random",
    "item_tower.width": 128,
    "user_tower.recency": False,
    "user_tower.width": 0,
    "head.name": "softmax",
    "head.temperature": 1.0,
    "head.event_bias": (),
    "optim.shared_moment": (),
}
TEXT_ONLY: Changes = {"item_tower.sources": ("text",), "optim.shared_moment": ()}
