"""MovieLens 100K, ids and text: first the encoder learns from behaviour, then the rest.

    python -m recjax.main --config=quickstart --workdir=runs/quickstart

Three and a half minutes on two CPU cores. Test HR@10 / NDCG@10 with seed 0:
.059 / .038 before training, .116 / .063 after its first phase, .230 / .127 at last.
"""

from ml_collections import ConfigDict

from recjax.config import base


def get_config() -> ConfigDict:
    """Returns two phases: the top encoder layers, then all else over frozen texts."""
    config = base.get_config()
    config.data.rating = "rating"
    config.data.user_table = True
    config.data.reverse = 0.3
    config.eval.like_threshold = 4.0
    config.item_tower.sources = ("id", "text")
    base.start_zero_shot(config)
    config.user_tower.dropout = 0.5
    config.loss.smoothing = 0.2
    config.text.remat_rows = 32
    config.train.batch_size = 64
    config.train.phases = (
        base.phase(
            "encoder",
            epochs=3,
            epoch_steps=15,
            batch_size=128,
            lr=1e-4,
            schedule="linear",
            warmup=0.1,
            lr_mults=base.tune_encoder(2, layers=6),
        ),
        base.phase("towers", epochs=12, lr=1e-3, ema=0.98),
    )
    return config
