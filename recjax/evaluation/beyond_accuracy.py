"""What the lists are like beside being right: coverage, concentration, novelty, ..."""

from collections.abc import Iterator

import numpy as np

from recjax.evaluation.subgroups import POPULARITY, popularity_groups

MAX_VALUES = 2**22  # of the vectors of some users' lists at a time: 16 MiB


def beyond_accuracy(
    top_RxK: np.ndarray,
    events_N: np.ndarray,
    k: int,
    vectors_NxD: np.ndarray | None = None,
) -> dict[str, float]:
    """Measures of all lists of the best k items.

    Args:
      top_RxK: the lists, best first; -1 where there is no item.
      events_N: training events of every item.
      k: cut-off; K may be less where the catalogue is smaller.
      vectors_NxD: of the items, for their distances.

    Returns:
      `coverage@k`, `gini@k`, `novelty@k`, `head@k`: the share of items of the head of
      `popularity_groups`, and `diversity@k` where there are finite vectors and lists of
      at least two items.
    """
    top_RxK, size = top_RxK[:, :k], len(events_N)
    head_N = popularity_groups(events_N) == POPULARITY.index("head")
    values = {
        "coverage": coverage(top_RxK, size),
        "gini": gini(top_RxK, size),
        "novelty": mean_of_lists(self_information(events_N), top_RxK),
        "head": mean_of_lists(head_N, top_RxK),
    }
    if vectors_NxD is not None and (top_RxK >= 0).sum(1).max(initial=0) >= 2:
        values["diversity"] = diversity(top_RxK, vectors_NxD)
    return {f"{name}@{k}": x for name, x in values.items() if np.isfinite(x)}


def coverage(top_RxK: np.ndarray, size: int) -> float:
    """Share of the catalogue that is recommended to somebody (Ge et al., 2010)."""
    return float((_recommended(top_RxK, size) > 0).mean())


def gini(top_RxK: np.ndarray, size: int) -> float:
    """Gini index of how often each item of the catalogue is recommended.

    Twice the area between the Lorenz curve and the diagonal, as in Fleder and Hosanagar
    (2009). With counts c_1 <= ... <= c_N, those of items that nobody gets included,

        sum_j (2 j - N - 1) c_j / (N sum_j c_j)

    which is 0 where all are recommended as often and 1 - 1 / N where one item is all
    that is.
    """
    counts_N = np.sort(_recommended(top_RxK, size))
    weights_N = 2 * np.arange(1, size + 1) - size - 1
    return float(weights_N @ counts_N / (size * max(int(counts_N.sum()), 1)))


def self_information(events_N: np.ndarray) -> np.ndarray:
    """Bits that an item tells, -log2 of its share of the training events.

    Zhou et al. (2010), who take the share of users; here as elsewhere an item is as
    popular as it has events. To every item one event is added, so that items without
    any have a share, the least one: (n_i + 1) / (sum_j n_j + N).
    """
    return -np.log2((events_N + 1) / (events_N.sum() + len(events_N)))


def mean_of_lists(x_N: np.ndarray, top_RxK: np.ndarray) -> float:
    """Mean over the lists of the mean of their items' values; 0 if all are empty."""
    there_RxK = top_RxK >= 0
    sums_R = (x_N[top_RxK] * there_RxK).sum(1)
    return _mean(sums_R, there_RxK.sum(1))


def diversity(top_RxK: np.ndarray, vectors_NxD: np.ndarray) -> float:
    """Mean cosine distance of the pairs of a list, and of it the mean over the lists.

    Smyth and McClave (2001); Ziegler et al. (2005) sum similarities. Lists of fewer
    than two items do not count. A vector of zeros is at distance 1 of every other.
    """
    sums_R = np.concatenate(
        [_distances(part_BxK, vectors_NxD) for part_BxK in _parts(top_RxK, vectors_NxD)]
    )
    counts_R = (top_RxK >= 0).sum(1)
    return _mean(sums_R, counts_R * (counts_R - 1) / 2)


def _distances(top_BxK: np.ndarray, vectors_NxD: np.ndarray) -> np.ndarray:
    """Sum over the pairs of a list; that of cosines is (|sum u|^2 - sum |u|^2) / 2."""
    x_BxKxD = vectors_NxD[top_BxK].astype(np.float32)
    norm_BxK = np.linalg.norm(x_BxKxD, axis=2)
    x_BxKxD /= np.maximum(norm_BxK, 1e-9)[..., None]
    x_BxKxD[top_BxK < 0] = 0
    whole_B = np.square(x_BxKxD.sum(1, dtype=np.float64)).sum(1)
    alone_B = np.square(x_BxKxD, dtype=np.float64).sum((1, 2))
    counts_B = (top_BxK >= 0).sum(1)
    return counts_B * (counts_B - 1) / 2 - (whole_B - alone_B) / 2


def _parts(top_RxK: np.ndarray, vectors_NxD: np.ndarray) -> Iterator[np.ndarray]:
    """Lists of so many users at a time that their vectors fit `MAX_VALUES`."""
    width = top_RxK.shape[1] * vectors_NxD.shape[1]
    size = max(MAX_VALUES // max(width, 1), 1)
    for start in range(0, len(top_RxK), size):
        yield top_RxK[start : start + size]


def _recommended(top_RxK: np.ndarray, size: int) -> np.ndarray:
    """How often each item stands in a list."""
    return np.bincount(top_RxK[top_RxK >= 0], minlength=size)


def _mean(sums_R: np.ndarray, counts_R: np.ndarray) -> float:
    """Mean of the rows' means, without rows that have nothing to average."""
    some_R = counts_R > 0
    if not some_R.any():
        return 0.0
    return float((sums_R[some_R] / counts_R[some_R]).mean())
