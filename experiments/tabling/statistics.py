"""Paired significance tests between systems, over users."""

from collections.abc import Sequence

import numpy as np

FLIPS = 10_000  # random sign assignments of a test


def by_user(values_R: np.ndarray, users_R: np.ndarray) -> np.ndarray:
    """Returns sums_V over the examples of each user, sorted by user."""
    _, user_R = np.unique(users_R, return_inverse=True)
    sums_V: np.ndarray = np.bincount(user_R, values_R)
    return sums_V


def paired_randomisation(differences_V: np.ndarray, *, flips: int = FLIPS) -> float:
    """Returns the two-sided p-value of a mean difference between two systems.

    This is Fisher's randomisation test (Smucker et al., CIKM 2007): the signs of all
    users' differences are resampled `flips` times. The p-value is the fraction of
    samples whose sum is at least as far from zero as that of the data, which count as
    one sample.
    """
    rng = np.random.default_rng(0)
    changed_V = differences_V[differences_V != 0]
    # The tolerance lets a sum of the same terms in another order count as equal.
    observed = abs(changed_V.sum()) - 1e-12 * abs(changed_V).sum()
    num_extreme = 1
    for start in range(0, flips, 1000):
        shape = min(1000, flips - start), len(changed_V)
        signs = rng.integers(0, 2, shape, dtype=np.int8) * 2 - 1
        num_extreme += int((abs(signs @ changed_V) >= observed).sum())
    return num_extreme / (flips + 1)


def holm(p: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm, 1979); keeps their order."""
    corrected, largest = [0.0] * len(p), 0.0
    for num_smaller, i in enumerate(np.argsort(p, kind="stable")):
        # A larger p-value is never corrected to less than a smaller one.
        largest = max(largest, min(1.0, (len(p) - num_smaller) * p[i]))
        corrected[i] = largest
    return corrected
