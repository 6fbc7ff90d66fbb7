"""Whitening of frozen text vectors over the catalogue."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

EPS = 1e-6  # floor of the variances, as a fraction of their mean
CHUNK_SIZE = 2**16  # vectors converted to float64 at a time, to bound the memory


class Whitening(NamedTuple):
    """A fitted whitening transform."""

    mean_E: np.ndarray
    map_ExE: np.ndarray

    def __call__(self, vectors_NxE: np.ndarray) -> np.ndarray:
        """Whitens vectors; the result has their shape and dtype."""
        white = ((x - self.mean_E) @ self.map_ExE for x in _chunks(vectors_NxE))
        return np.concatenate([x.astype(vectors_NxE.dtype) for x in white])


def fit_whitening(vectors_NxE: np.ndarray, power: float = 1.0) -> Whitening:
    """Fits a whitening: zero mean and, at power 1, identity covariance (ZCA).

    Vectors of pretrained encoders lie in a narrow cone, where all cosines are large (Su
    et al., Whitening sentence representations, 2021; for item texts: Zhang et al.,
    WhitenRec, 2024). Among all whitening transforms, ZCA keeps the vectors closest to
    the original ones (Kessy et al., Optimal whitening and decorrelation, 2018).

    Each principal component is divided by its standard deviation to the `power`; 0 only
    centres.
    """
    num_items = len(vectors_NxE)
    mean_E = sum(x.sum(0) for x in _chunks(vectors_NxE)) / num_items
    centred = (x - mean_E for x in _chunks(vectors_NxE))
    covariance_ExE = sum(x.T @ x for x in centred) / num_items
    variance_E, axes_ExE = np.linalg.eigh(covariance_ExE)
    variance_E = np.maximum(variance_E, 0)  # rounding may leave it slightly negative
    # A direction in which the items do not differ becomes zero: only a variance well
    # above the floor becomes 1. A layer norm leaves one such direction, because its
    # outputs have a constant sum before its scale and bias; with N <= E there are more.
    floor = max(EPS * variance_E.mean(), np.finfo(np.float64).tiny)
    # ZCA: rotate to the axes, rescale, rotate back.
    map_ExE = axes_ExE * (variance_E + floor) ** (-power / 2) @ axes_ExE.T
    return Whitening(mean_E, map_ExE)


def whiten(vectors_NxE: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Whitens vectors by a transform that is fitted on them, see `fit_whitening`."""
    return fit_whitening(vectors_NxE, power)(vectors_NxE)


def _chunks(vectors_NxE: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors_NxE), CHUNK_SIZE):
        yield vectors_NxE[start : start + CHUNK_SIZE].astype(np.float64)
