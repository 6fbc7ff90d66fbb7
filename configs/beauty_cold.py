"""Amazon Beauty with a tenth of its items new at the test, known by id, text or both.

    python -m recjax.main --config=configs/beauty_cold.py:text --workdir=runs/cold \
        --config.data.source=DIR

DIR holds `amazon-beauty.inter` and `amazon-beauty.item` in RecBole's atomic format: the
5-core set of 2014 that S3-Rec distributes, with titles. The part after the colon is
`id`, `text` or `id+text`. Results: experiments/beauty_cold.
"""

from ml_collections import ConfigDict

from configs import base, data_sets


def get_config(sources: str = "text") -> ConfigDict:
    """Leave-one-out, seen items masked, history of 20, frozen encoder."""
    c = base.get_config()
    data_sets.amazon_beauty(c)
    c.data.cold_items = 0.1
    c.item_tower.sources = tuple(sources.split("+"))
    c.user_tower.dropout = 0.4
    c.train.phases = (base.phase("towers", epochs=15, lr=1e-3, ema=0.98, patience=4),)
    c.eval.baselines = ("popularity", "transitions")
    return c
