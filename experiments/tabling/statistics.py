"""Paired significance tests between systems, over users."""

from collections.abc import Sequence

import numpy as np

FLIPS = 10_000


def by_user(values_R: np.ndarray, users_R: np.ndarray) -> np.ndarray:
    """Returns sums_V over the examples of each user, sorted by user."""
    _, user_R = np.unique(users_R, return_inverse=True)
    sums_V: np.ndarray = np.bincount(user_R, values_R)
    return sums_V


def paired_randomisation(differences_V: np.ndarray, *, flips: int = FLIPS) -> float:
    """Returns the two-sided p-value of a mean difference, if its signs were random.

    This is Fisher's randomisation test (Smucker et al., CIKM 2007): the signs of all
    users' differences are resampled `flips` times, and the data count as one sample.
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
    """Returns the p-values corrected for their number (Holm, 1979), in their order."""
    corrected, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(np.argsort(p, kind="stable")):
        # A later p-value is never corrected to less than an earlier one.
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = largest
    return corrected
