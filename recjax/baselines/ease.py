"""EASE: a linear autoencoder over items in closed form."""

import numpy as np
import scipy.linalg

from recjax.baselines.matrix import histories, interactions, tie_break
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples

MAX_ITEMS = 30_000  # N x N numbers in double and in single precision: 11 GB


class Ease:
    """Scores an item by a learned weight from every item of the history.

    Least squares with an L2 penalty and a zero weight from an item to itself: Steck,
    *Embarrassingly shallow autoencoders for sparse data*, WWW 2019. Without a history
    the more popular items come first.

    `l2` is lambda, the paper's 500 for MovieLens 20M (200 to 1000 elsewhere).
    """

    def __init__(self, seed: int, *, l2: float = 500.0):
        del seed
        self.l2 = l2

    def fit(self, examples: Examples, num_items: int) -> None:
        """Solves for weights_NxN, from a history item (row) to a scored item.

        Equation 8 of the paper: B = I - P diag(1 / diag P), P = (X'X + lambda I)^-1.
        Meant for at most `MAX_ITEMS` items.
        """
        matrix_VxN = interactions(examples, num_items)
        gram_NxN = (matrix_VxN.T @ matrix_VxN).astype(np.float64).toarray()
        np.fill_diagonal(gram_NxN, gram_NxN.diagonal() + self.l2)
        # The matrix is symmetric, and its transpose has the Fortran order that LAPACK
        # can overwrite, which saves a copy of N x N doubles.
        inverse_NxN = scipy.linalg.inv(gram_NxN.T, overwrite_a=True, check_finite=False)
        inverse_NxN /= -inverse_NxN.diagonal()
        np.fill_diagonal(inverse_NxN, 0)
        self.weights_NxN = inverse_NxN.astype(np.float32, order="C")
        self.ties_N = tie_break(examples, num_items).astype(np.float32)

    def score(self, queries: Queries) -> np.ndarray:
        return histories(queries, len(self.ties_N)) @ self.weights_NxN + self.ties_N
