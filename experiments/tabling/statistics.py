"""Paired tests between systems, over users."""

from collections.abc import Sequence

import numpy as np

FLIPS = 10_000


def by_user(values_R: np.ndarray, users_R: np.ndarray) -> np.ndarray:
    """Sums over the rows of each user: sums_V, in the order of the users' names."""
    _, user_R = np.unique(users_R, return_inverse=True)
    sums_V: np.ndarray = np.bincount(user_R, values_R)
    return sums_V


def paired_randomisation(differences_V: np.ndarray, *, flips: int = FLIPS) -> float:
    """Two-sided p of a mean difference as far from zero, were the signs by chance.

    The signs of all users' differences are drawn anew `flips` times (Fisher's
    randomisation test; Smucker et al., CIKM 2007); the sample itself counts as one.
    """
    rng, changed_V = np.random.default_rng(0), differences_V[differences_V != 0]
    # Sums in another order are as far.
    found = abs(changed_V.sum()) - 1e-12 * abs(changed_V).sum()
    as_far = 1
    for start in range(0, flips, 1000):
        shape = min(1000, flips - start), len(changed_V)
        signs = rng.integers(0, 2, shape, dtype=np.int8) * 2 - 1
        as_far += int((abs(signs @ changed_V) >= found).sum())
    return as_far / (flips + 1)


def holm(p: Sequence[float]) -> list[float]:
    """p corrected for their number (Holm, 1979), in their order."""
    order, corrected, most = np.argsort(p, kind="stable"), [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        most = max(most, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = most
    return corrected
