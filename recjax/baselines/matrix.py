"""Rows and queries -> sparse matrices with a column for every item; T counts events."""

import numpy as np
from scipy import sparse

from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples

TIE_BREAK = 1e-3  # times an item's share of the events, where a rule scores alike


def sequences(rows: Examples) -> tuple[np.ndarray, np.ndarray]:
    """All histories with their targets, one after another: items_T, rows_T."""
    parts = [rows.sequence(row) for row in range(len(rows))]
    lengths_R = [len(part) for part in parts]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), lengths_R)


def interactions(rows: Examples, num_items: int) -> sparse.csr_array:
    """Users by items: one where a history or a target of the user has the item.

    Returns:
      matrix_VxN of ones in float32, where V is one more than the last user of the rows;
      a user without a row has an empty one.
    """
    items_T, rows_T = sequences(rows)
    users_T = rows.users_R[rows_T]
    shape = (int(rows.users_R.max()) + 1, num_items)
    return _ones(_sums(users_T, items_T, np.ones(len(items_T)), shape))


def histories(queries: Queries, num_items: int) -> sparse.csr_array:
    """matrix_BxN of ones where the history that a query shows has the item."""
    weights_H = np.ones(queries.history_BxH.shape[1])
    return _ones(weighted_histories(queries, num_items, weights_H))


def weighted_histories(
    queries: Queries, num_items: int, weights_H: np.ndarray
) -> sparse.csr_array:
    """matrix_BxN of the sums of an item's weights, one for every place in a history."""
    users_T, places_T = np.nonzero(queries.mask_BxH & (weights_H != 0)[None])
    items_T = queries.history_BxH[users_T, places_T]
    shape = (len(queries.targets_B), num_items)
    return _sums(users_T, items_T, weights_H[places_T], shape)


def fading_weights(length: int, newest: int, fade: float) -> np.ndarray:
    """weights_H: 1 for the last place, `fade` times less for every older one."""
    back_H = np.arange(length)[::-1]
    return np.where(back_H < newest, fade**back_H, 0.0)


def tie_break(rows: Examples, num_items: int) -> np.ndarray:
    """bias_N that puts the more popular first where a rule scores alike."""
    items_T = rows.events()
    return TIE_BREAK * np.bincount(items_T, minlength=num_items) / len(items_T)


def _sums(
    rows_T: np.ndarray, columns_T: np.ndarray, x_T: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    entries = (x_T.astype(np.float32), (rows_T, columns_T))
    return sparse.coo_array(entries, shape=shape).tocsr()


def _ones(matrix: sparse.csr_array) -> sparse.csr_array:
    matrix.data[:] = 1
    return matrix
