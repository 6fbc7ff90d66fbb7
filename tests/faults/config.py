"""Fine-tuning a tiny text encoder on synthetic data: DATA is a directory.

python -m recjax.main --config=tests/faults/config.py:DATA --workdir=DIR
"""

from pathlib import Path

from ml_collections import ConfigDict

from recjax.config import base

TINY_BERT = Path(__file__).parents[1] / "fixtures" / "tiny_bert"


def get_config(data: str) -> ConfigDict:
    """Trains towers over the frozen encoder, then its top layer; logs every step."""
    c = base.get_config()
    c.data.source, c.data.history_length = data, 6
    c.text.encoder = str(TINY_BERT)
    c.text.template, c.text.title = "{title} {genre}", "{title}"
    c.text.max_tokens, c.text.row_tokens, c.text.rows_per_batch = 12, 16, 8
    c.text.cache_disk_gib = 0.0
    c.item_tower.sources, c.item_tower.width = ("id", "text"), 8
    c.user_tower.num_layers = 1
    c.train.batch_size, c.eval.batch_size, c.eval.bootstrap_samples = 8, 16, 20
    c.loss.negatives, c.loss.refresh_steps = "stale", 3
    c.train.checkpoint_seconds = 0.5
    c.report.every_steps = 1
    top = base.freeze(1, layers=3)
    c.train.phases = (
        base.phase("towers", epochs=3, lr=1e-2, patience=0),
        base.phase("top", epochs=40, lr=1e-2, patience=0, ema=0.5, lr_mults=top),
    )
    return c
