"""Baselines: simple recommenders behind one `fit` and `score` interface."""

from collections.abc import Callable
from typing import Protocol

from recjax.baselines.bpr_mf import BprMf
from recjax.baselines.ease import Ease
from recjax.baselines.ials import Ials
from recjax.baselines.item_knn import ItemKnn
from recjax.baselines.popularity import Popularity
from recjax.baselines.random import Random
from recjax.baselines.recent_popularity import RecentPopularity
from recjax.baselines.text import TextSimilarity
from recjax.baselines.transitions import Transitions, repeat_transitions
from recjax.data.batching.types import Scorer
from recjax.data.dataset import Examples

__all__ = [
    "BASELINES",
    "TEXT",
    "Baseline",
    "BprMf",
    "Ease",
    "Ials",
    "ItemKnn",
    "Popularity",
    "Random",
    "RecentPopularity",
    "TextSimilarity",
    "Transitions",
]


class Baseline(Scorer, Protocol):
    """A scorer that is fitted on the training examples."""

    def fit(self, rows: Examples, num_items: int) -> None:
        """Learns from the training examples of a catalogue of `num_items` items."""


BASELINES: dict[str, Callable[[int], Baseline]] = {
    "random": Random,
    "popularity": Popularity,
    "recent_popularity": RecentPopularity,
    "transitions": Transitions,
    "repeat_transitions": repeat_transitions,
    "item_knn": ItemKnn,
    "ease": Ease,
    "ials": Ials,
    "bpr_mf": BprMf,
}
TEXT = "text"  # `TextSimilarity`: takes text vectors instead of a seed
