"""Whitening of frozen text vectors over the catalogue."""

from collections.abc import Iterator

import numpy as np

EPS = 1e-6  # of the mean variance
ROWS = 2**16  # in float64 at a time


def whiten(vectors_NxE: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Moves the mean to zero and makes the covariance the identity (ZCA).

    Vectors of pretrained encoders lie in a narrow cone, where all cosines are large (Su
    et al., Whitening sentence representations, 2021; of item texts: Zhang et al.,
    WhitenRec, 2024). Of all whitenings ZCA leaves the vectors closest to what they were
    (Kessy et al., 2018).

    A direction in which the items do not differ becomes zero: only a variance well
    above `EPS` becomes 1. One such direction is behind every layer norm, whose sums are
    constant but for its scale and bias; where N is at most E there are more.

    Args:
      vectors_NxE: of all items.
      power: each principal deviation is divided by itself to this power: 1 whitens, 0
        only centres, between the two the strong directions stay somewhat stronger.

    Returns:
      Vectors of the same shape and dtype.
    """
    mean_E = sum(x.sum(0) for x in _pieces(vectors_NxE)) / len(vectors_NxE)
    centred = (x - mean_E for x in _pieces(vectors_NxE))
    covariance_ExE = sum(x.T @ x for x in centred) / len(vectors_NxE)
    variance_E, axes_ExE = np.linalg.eigh(covariance_ExE)
    variance_E = np.maximum(variance_E, 0)
    floor = max(EPS * variance_E.mean(), np.finfo(np.float64).tiny)
    map_ExE = axes_ExE * (variance_E + floor) ** (-power / 2) @ axes_ExE.T
    white = ((x - mean_E) @ map_ExE for x in _pieces(vectors_NxE))
    return np.concatenate([x.astype(vectors_NxE.dtype) for x in white])


def _pieces(vectors_NxE: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors_NxE), ROWS):
        yield vectors_NxE[start : start + ROWS].astype(np.float64)
