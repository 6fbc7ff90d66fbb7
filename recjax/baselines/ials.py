"""Matrix factorisation for implicit feedback by alternating least squares."""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from recjax.baselines.matrix import histories, interactions, tie_break
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples

BATCH = 512  # rows solved for at a time
PIECE = (
    64  # P, entries multiplied at a time: BLAS shares larger products out to threads
)


class Ials:
    """Scores an item by its factors times those of the history's owner.

    Hu, Koren and Volinsky, *Collaborative filtering for implicit feedback datasets*,
    ICDM 2008: every item a user had is a one with confidence 1 + alpha, every other a
    zero with confidence 1. A user who asks is folded in by the step that finds the
    users in training, so that nothing but the history is needed. Without a history the
    more popular come first.

    Args:
      seed: of the initial item factors.
      width: D, number of factors.
      alpha: confidence that an event adds; as the penalty a compromise of the
        validation rows of MovieLens 100K and Amazon Industrial (the paper has 40, for
        television).
      penalty: lambda, on the squares of all factors.
      epochs: times that all users and all items are solved for (the paper's 10).
    """

    def __init__(
        self,
        seed: int,
        *,
        width: int = 64,
        alpha: float = 10.0,
        penalty: float = 10.0,
        epochs: int = 10,
    ):
        self.seed, self.width, self.epochs = seed, width, epochs
        self.alpha, self.penalty = alpha, penalty

    def fit(self, rows: Examples, num_items: int) -> None:
        """Alternates between users and items."""
        users_VxN = interactions(rows, num_items)
        items_NxV = users_VxN.T.tocsr()
        self.items_NxD = init_items(self.seed, num_items, self.width)
        for _ in range(self.epochs):
            users_VxD = self.solve(users_VxN, self.items_NxD)
            self.items_NxD = self.solve(items_NxV, users_VxD)
        self.ties_N = tie_break(rows, num_items).astype(np.float32)

    def score(self, queries: Queries) -> np.ndarray:
        """scores_BxN."""
        history_BxN = histories(queries, len(self.ties_N))
        users_BxD = self.solve(history_BxN, self.items_NxD)
        return users_BxD @ self.items_NxD.T + self.ties_N

    def solve(self, had: sparse.csr_array, factors: np.ndarray) -> np.ndarray:
        """One side's factors, a row for each of `had`; the other side's are given."""
        return solve_rows(had, factors, self.alpha, self.penalty)


def init_items(seed: int, num_items: int, width: int) -> np.ndarray:
    """Small normal items_NxD."""
    shape, scale = (num_items, width), 0.1 / np.sqrt(width)
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def solve_rows(
    had_RxC: sparse.csr_array, factors_CxD: np.ndarray, alpha: float, penalty: float
) -> np.ndarray:
    """Equation 4 of the paper for R rows (users, or items): solved_RxD.

    The Gramian of all C factors is computed once; a row adds its own entries to it.
    """
    width = factors_CxD.shape[1]
    gram_DxD = factors_CxD.T @ factors_CxD + penalty * np.eye(width, dtype=np.float32)
    solved_RxD = np.zeros((had_RxC.shape[0], width), np.float32)
    order_R = np.argsort(np.diff(had_RxC.indptr))  # rows of about one length together
    for start in range(0, len(order_R), BATCH):
        examples_B = order_R[start : start + BATCH]
        left_BxDxD = np.tile(gram_DxD, (len(examples_B), 1, 1))
        right_BxD = np.zeros((len(examples_B), width), np.float32)
        for columns_BxP, mask_BxP in _pieces(had_RxC, examples_B):
            own_BxPxD = factors_CxD[columns_BxP] * mask_BxP[..., None]
            left_BxDxD += (alpha * own_BxPxD).transpose(0, 2, 1) @ own_BxPxD
            right_BxD += (1 + alpha) * own_BxPxD.sum(axis=1)
        solved_RxD[examples_B] = np.linalg.solve(left_BxDxD, right_BxD[..., None])[
            ..., 0
        ]
    return solved_RxD


def _pieces(
    had_RxC: sparse.csr_array, examples_B: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The entries of some rows, P at a time: columns_BxP, mask_BxP."""
    starts_B, ends_B = had_RxC.indptr[examples_B], had_RxC.indptr[examples_B + 1]
    for skip in range(0, (ends_B - starts_B).max(), PIECE):
        places_BxP = starts_B[:, None] + skip + np.arange(PIECE)
        mask_BxP = places_BxP < ends_B[:, None]
        columns_BxP = had_RxC.indices[np.where(mask_BxP, places_BxP, 0)]
        yield columns_BxP, mask_BxP.astype(np.float32)
