"""Matrix factorisation for implicit feedback by alternating least squares."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np
from scipy import sparse

from recjax.baselines.matrix import histories, interactions, tie_break
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples

BATCH_SIZE = 512  # rows solved at a time
# P, entries of a row multiplied at a time. BLAS splits larger products over threads,
# which costs more than it gains here.
PIECE_SIZE = 64


@dataclass(eq=False)
class Ials:
    """Scores an item by its factors times the factors of the history.

    Hu, Koren and Volinsky, *Collaborative filtering for implicit feedback datasets*,
    ICDM 2008: every interaction is a one with confidence 1 + alpha, every other pair a
    zero with confidence 1. Without a history the more popular items come first.

    Attributes:
      seed: seed of the initial item factors.
      width: D, number of factors.
      alpha, l2: added confidence, and lambda, the penalty on the squares of all
        factors: a compromise between the validation examples of MovieLens 100K and
        Amazon Industrial (the paper's alpha for television is 40).
      epochs: alternations between users and items (the paper's 10).
    """

    seed: int
    _: KW_ONLY
    width: int = 64
    alpha: float = 10.0
    l2: float = 10.0
    epochs: int = 10

    def fit(self, examples: Examples, num_items: int) -> None:
        users_VxN = interactions(examples, num_items)
        items_NxV = users_VxN.T.tocsr()
        self.items_NxD = init_items(self.seed, num_items, self.width)
        for _ in range(self.epochs):
            users_VxD = solve_rows(users_VxN, self.items_NxD, self.alpha, self.l2)
            self.items_NxD = solve_rows(items_NxV, users_VxD, self.alpha, self.l2)
        self.ties_N = tie_break(examples, num_items).astype(np.float32)

    def score(self, queries: Queries) -> np.ndarray:
        # A query is folded in by the step that solves for users in training, so that
        # its history is all it needs.
        history_BxN = histories(queries, len(self.ties_N))
        users_BxD = solve_rows(history_BxN, self.items_NxD, self.alpha, self.l2)
        return users_BxD @ self.items_NxD.T + self.ties_N


def init_items(seed: int, num_items: int, width: int) -> np.ndarray:
    """Returns small normally distributed items_NxD."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1 / np.sqrt(width), (num_items, width)).astype(np.float32)


def solve_rows(
    matrix_RxC: sparse.csr_array, factors_CxD: np.ndarray, alpha: float, l2: float
) -> np.ndarray:
    """Solves equation 4 of the paper for R rows (users or items): solved_RxD.

    `factors_CxD` are the fixed factors of the other side.
    """
    width = factors_CxD.shape[1]
    # The Gramian of all factors is the same for all rows; each adds its own entries.
    gram_DxD = factors_CxD.T @ factors_CxD + l2 * np.eye(width, dtype=np.float32)
    solved_RxD = np.zeros((matrix_RxC.shape[0], width), np.float32)
    # Rows of similar length share a batch, so that little of it is padding.
    order_R = np.argsort(np.diff(matrix_RxC.indptr))
    for start in range(0, len(order_R), BATCH_SIZE):
        rows_B = order_R[start : start + BATCH_SIZE]
        left_BxDxD = np.tile(gram_DxD, (len(rows_B), 1, 1))
        right_BxD = np.zeros((len(rows_B), width), np.float32)
        for columns_BxP, mask_BxP in _pieces(matrix_RxC, rows_B):
            own_BxPxD = factors_CxD[columns_BxP] * mask_BxP[..., None]
            left_BxDxD += (alpha * own_BxPxD).transpose(0, 2, 1) @ own_BxPxD
            right_BxD += (1 + alpha) * own_BxPxD.sum(axis=1)
        solution_BxDx1 = np.linalg.solve(left_BxDxD, right_BxD[..., None])
        solved_RxD[rows_B] = solution_BxDx1[..., 0]
    return solved_RxD


def _pieces(
    matrix_RxC: sparse.csr_array, rows_B: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the entries of some rows, P at a time: columns_BxP, mask_BxP."""
    starts_B, ends_B = matrix_RxC.indptr[rows_B], matrix_RxC.indptr[rows_B + 1]
    for skip in range(0, (ends_B - starts_B).max(), PIECE_SIZE):
        entry_BxP = starts_B[:, None] + skip + np.arange(PIECE_SIZE)
        mask_BxP = entry_BxP < ends_B[:, None]
        columns_BxP = matrix_RxC.indices[np.where(mask_BxP, entry_BxP, 0)]
        yield columns_BxP, mask_BxP.astype(np.float32)
