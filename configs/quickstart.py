"""MovieLens 100K, items known by id and text: frozen first, then fine-tuned.

    python -m recjax.main --config=configs/quickstart.py --workdir=runs/quickstart

At most four minutes on two CPU cores. Test HR@10 / NDCG@10 with seed 0: .184 / .094
after the first phase, .202 / .103 after the second.
"""

from ml_collections import ConfigDict

from configs import data_sets
from recjax.config import base


def get_config() -> ConfigDict:
    """Ids and text; towers over frozen vectors, then the encoder's top layer."""
    c = base.get_config()
    data_sets.ml100k(c)
    c.item_tower.sources = ("id", "text")
    c.user_tower.dropout = 0.3
    c.train.batch_size = 128
    c.train.phases = (
        base.phase("towers", epochs=12, lr=2e-3, ema=0.98),
        base.phase(
            "top",
            epochs=3,
            lr=1e-3,
            schedule="cosine",
            warmup=0.1,
            ema=0.9,
            lr_mults=base.freeze(1, layers=6, encoder=0.2),
        ),
    )
    return c
