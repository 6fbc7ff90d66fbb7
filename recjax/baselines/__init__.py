"""Baselines: simple recommenders behind one `fit` and `score` interface."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from recjax.baselines.bpr_mf import BprMf
from recjax.baselines.ease import Ease
from recjax.baselines.ials import Ials
from recjax.baselines.item_knn import ItemKnn
from recjax.baselines.popularity import Popularity, Random, RecentPopularity
from recjax.baselines.transitions import Transitions
from recjax.data.batching.types import Scorer
from recjax.data.dataset import Examples


class Baseline(Scorer, Protocol):
    """A scorer that is fitted on the training examples."""

    def fit(self, examples: Examples, num_items: int) -> None:
        """Learns from the training examples of a catalogue of `num_items` items."""


# Called with a seed, which not all of them use.
BASELINES: dict[str, Callable[[int], Baseline]] = {
    "random": Random,
    "popularity": Popularity,
    "recent_popularity": RecentPopularity,
    "transitions": Transitions,
    "repeat_transitions": partial(Transitions, repeats=True),
    "item_knn": ItemKnn,
    "ease": Ease,
    "ials": Ials,
    "bpr_mf": BprMf,
}
TEXT = "text"  # `text.TextSimilarity`, which takes text vectors instead of a seed
AUTO = "auto"  # value of `head.fusion`, see `score_fusion.auto_fusion`
