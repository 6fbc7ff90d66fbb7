"""Recent popularity: the most frequent recent training items, the same for all."""

import numpy as np

from recjax.baselines.popularity import Popularity
from recjax.data.dataset import Examples


class RecentPopularity(Popularity):
    """Scores an item by its training events, with exponentially decaying weights.

    Decaying popularity as in Ji et al., *A Re-visit of the Popularity Baseline in
    Recommender Systems*, SIGIR 2020 (DecayPop). Age is measured in events instead of
    months, so that one setting fits data sets of any time span and a single wrong
    timestamp does no harm. Timestamps must be comparable across users; without
    timestamps the order of the file is used.

    Args:
      seed: unused.
      half_life: age at which an event weighs one half, as a share of all events; .05 to
        .2 were equally good on the validation examples of MovieLens 100K and Amazon
        Industrial.
    """

    def __init__(self, seed: int, *, half_life: float = 0.1):
        super().__init__(seed)
        self.half_life = half_life

    def fit(self, rows: Examples, num_items: int) -> None:
        """Counts weighted events; simultaneous events have equal weights."""
        times_T = event_times(rows)
        newer_T = len(times_T) - np.searchsorted(np.sort(times_T), times_T, "right")
        weights_T = 0.5 ** (newer_T / (self.half_life * len(times_T)))
        counts_N = np.bincount(rows.events(), weights_T, minlength=num_items)
        self.counts_N = counts_N.astype(np.float32)


def event_times(rows: Examples) -> np.ndarray:
    """Returns times_T of `rows.events()`, or their positions if times are unknown."""
    if rows.times is None or rows.target_times_R is None or not rows.all_positions:
        return np.arange(len(rows.events()))
    return np.concatenate([rows.times[rows.positions()], rows.target_times_R])
