"""Sparse interaction matrices of training examples and queries, one column per item.

T is the number of events of all examples, which follow one another.
"""

import numpy as np
from scipy import sparse

from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples

TIE_BREAK = 1e-3  # score of an item with all events: small next to other scores


def sequences(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Returns all histories with their targets: items_T, and the example of each."""
    parts = [examples.sequence(i) for i in range(len(examples))]
    lengths_R = [len(part) for part in parts]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), lengths_R)


def interactions(examples: Examples, num_items: int) -> sparse.csr_array:
    """Returns matrix_VxN: one where a user's history or target contains the item.

    A user without examples has an empty row; V is one more than the last user.
    """
    items_T, examples_T = sequences(examples)
    users_T = examples.users_R[examples_T]
    shape = (int(examples.users_R.max()) + 1, num_items)
    return _ones(_sums(users_T, items_T, np.ones(len(items_T)), shape))


def histories(queries: Queries, num_items: int) -> sparse.csr_array:
    """Returns matrix_BxN: one where the history of a query contains the item."""
    weights_H = np.ones(queries.history_BxH.shape[1])
    return _ones(weighted_histories(queries, num_items, weights_H))


def weighted_histories(
    queries: Queries, num_items: int, weights_H: np.ndarray
) -> sparse.csr_array:
    """Returns matrix_BxN: sums of an item's weights over its history positions."""
    users_T, positions_T = np.nonzero(queries.mask_BxH & (weights_H != 0)[None])
    items_T = queries.history_BxH[users_T, positions_T]
    shape = (len(queries.targets_B), num_items)
    return _sums(users_T, items_T, weights_H[positions_T], shape)


def recency_weights(length: int, num_recent: int, decay: float) -> np.ndarray:
    """Returns weights_H: `decay**age` of the last `num_recent` positions, else 0."""
    age_H = np.arange(length)[::-1]
    return np.where(age_H < num_recent, decay**age_H, 0.0)


def tie_break(examples: Examples, num_items: int) -> np.ndarray:
    """Returns a small bias_N that ranks the more popular first among equal scores."""
    items_T = examples.events()
    return TIE_BREAK * np.bincount(items_T, minlength=num_items) / len(items_T)


def _sums(
    rows_T: np.ndarray, columns_T: np.ndarray, x_T: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    entries = (x_T.astype(np.float32), (rows_T, columns_T))
    # Duplicate entries are added up by the conversion.
    return sparse.coo_array(entries, shape=shape).tocsr()


def _ones(matrix: sparse.csr_array) -> sparse.csr_array:
    matrix.data[:] = 1
    return matrix
