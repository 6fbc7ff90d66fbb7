"""Beyond-accuracy metrics: coverage, Gini index, novelty, head share, diversity."""

import numpy as np

from recjax.common.vectors import unit_vectors
from recjax.evaluation.subgroups import POPULARITY, popularity_groups

MAX_VALUES = 2**22  # numbers in the vectors of lists read at a time: 16 MiB


def beyond_accuracy(
    top_RxK: np.ndarray,
    events_N: np.ndarray,
    k: int,
    vectors_NxD: np.ndarray | None = None,
) -> dict[str, float]:
    """Returns beyond-accuracy metrics of all top-k lists.

    Args:
      top_RxK: the lists, best item first; -1 marks a missing item. K may be smaller
        than the cut-off k in a small catalogue.
      events_N: number of training events of every item.
      vectors_NxD: item vectors, for the distances in `diversity`.

    Returns:
      `coverage@k`, `gini@k`, `novelty@k`, `head@k` (share of recommended items in the
      head of `popularity_groups`), and `diversity@k` if vectors are given and a list
      has at least two items. Values that are not finite are left out.
    """
    top_RxK = top_RxK[:, :k]
    num_items = len(events_N)
    head_N = popularity_groups(events_N) == POPULARITY.index("head")
    values = {
        "coverage": coverage(top_RxK, num_items),
        "gini": gini(top_RxK, num_items),
        "novelty": mean_of_lists(self_information(events_N), top_RxK),
        "head": mean_of_lists(head_N, top_RxK),
    }
    if vectors_NxD is not None and (top_RxK >= 0).sum(1).max(initial=0) >= 2:
        values["diversity"] = diversity(top_RxK, vectors_NxD)
    return {f"{name}@{k}": x for name, x in values.items() if np.isfinite(x)}


def coverage(top_RxK: np.ndarray, num_items: int) -> float:
    """Returns the share of the catalogue that is ever recommended (Ge et al., 2010)."""
    return float((_times_recommended(top_RxK, num_items) > 0).mean())


def gini(top_RxK: np.ndarray, num_items: int) -> float:
    """Returns the Gini index of how often each item of the catalogue is recommended.

    0 means that all items are recommended equally often, 1 - 1 / N that a single item
    takes all recommendations (Fleder and Hosanagar, 2009).
    """
    # With sorted counts c_1 <= ... <= c_N, which include the items that are never
    # recommended, the index is sum_j (2 j - N - 1) c_j / (N sum_j c_j).
    counts_N = np.sort(_times_recommended(top_RxK, num_items))
    weights_N = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(weights_N @ counts_N / (num_items * max(int(counts_N.sum()), 1)))


def self_information(events_N: np.ndarray) -> np.ndarray:
    """Returns the novelty of each item in bits: -log2 of its share of training events.

    Zhou et al. (2010) use the share of users instead.
    """
    # One event is added to every item, so that items without events have a finite
    # novelty, the largest one.
    return -np.log2((events_N + 1) / (events_N.sum() + len(events_N)))


def mean_of_lists(x_N: np.ndarray, top_RxK: np.ndarray) -> float:
    """Returns the mean over lists of the mean item value; 0 if all lists are empty."""
    is_item_RxK = top_RxK >= 0
    return _mean((x_N[top_RxK] * is_item_RxK).sum(1), is_item_RxK.sum(1))


def diversity(top_RxK: np.ndarray, vectors_NxD: np.ndarray) -> float:
    """Returns the mean cosine distance of the pairs in a list, averaged over lists.

    Smyth and McClave (2001); Ziegler et al. (2005) sum similarities instead. Lists of
    fewer than two items are skipped. A zero vector has distance 1 to every other.
    """
    # The vectors of all lists at once may not fit into memory.
    values_per_list = top_RxK.shape[1] * vectors_NxD.shape[1]
    size = max(MAX_VALUES // max(values_per_list, 1), 1)
    sums = [
        _pair_distances(top_RxK[start : start + size], vectors_NxD)
        for start in range(0, len(top_RxK), size)
    ]
    counts_R = (top_RxK >= 0).sum(1)
    return _mean(np.concatenate(sums), counts_R * (counts_R - 1) / 2)


def _pair_distances(top_BxK: np.ndarray, vectors_NxD: np.ndarray) -> np.ndarray:
    """Returns the sum of cosine distances over the pairs of each list."""
    # The sum of cosines over pairs is (|sum u|^2 - sum |u|^2) / 2 for unit vectors u,
    # which takes K instead of K^2 products.
    unit_BxKxD = unit_vectors(vectors_NxD[top_BxK])
    unit_BxKxD[top_BxK < 0] = 0
    square_of_sum_B = np.square(unit_BxKxD.sum(1, dtype=np.float64)).sum(1)
    sum_of_squares_B = np.square(unit_BxKxD, dtype=np.float64).sum((1, 2))
    counts_B = (top_BxK >= 0).sum(1)
    return counts_B * (counts_B - 1) / 2 - (square_of_sum_B - sum_of_squares_B) / 2


def _times_recommended(top_RxK: np.ndarray, num_items: int) -> np.ndarray:
    """Counts the lists that contain each item."""
    return np.bincount(top_RxK[top_RxK >= 0], minlength=num_items)


def _mean(sums_R: np.ndarray, counts_R: np.ndarray) -> float:
    """Returns the mean of the lists' means, without lists that have no values."""
    some_R = counts_R > 0
    means_R = sums_R[some_R] / counts_R[some_R]
    return float(means_R.mean()) if len(means_R) else 0.0
