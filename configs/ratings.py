"""MovieLens 100K: whether a user likes a film, which is a rating of 4 or 5.

    python -m recjax.main --config=configs/ratings.py --workdir=runs/ratings

The last tenth of each user's ratings is for the test, and the tenth before it for
validation: 9,988 ratings each. The last rating of each user alone would be 943, too few
to tell models apart by their AUC.

About two minutes on two CPU cores. AUC of likes, mean of seeds 0, 1 and 2 and their
standard deviation: .8065 ± .0008 on the test, .7881 ± .0008 on validation. Counts alone
(smoothed shares of likes of the film and of the user's last 20 ratings, added as
log-odds) have .796 and .785.
"""

from ml_collections import ConfigDict

from configs import data_sets
from recjax.config import base


def get_config() -> ConfigDict:
    """Returns a causal transformer that reads films, by id and text, and ratings."""
    config = base.get_config()
    data_sets.ml100k(config)
    config.data.split = "ratio"
    config.item_tower.sources = ("id", "text")
    config.user_tower.ratings = True
    config.loss.name = "rating"
    config.loss.negatives = "in_batch"  # no negatives, so that only targets are encoded
    config.train.metric = "like_auc"
    config.report.metrics = ("like_auc", "hr@10", "ndcg@10")
    config.eval.baselines = ("popularity",)
    config.train.phases = (
        base.phase("towers", epochs=20, lr=1e-3, ema=0.98, patience=4),
    )
    return config
