"""Rounds sizes up, and pads arrays to them."""

from collections.abc import Sequence

import numpy as np


def round_up(size: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def shorten(width: int, longest: int, smallest: float) -> int:
    """Halves a width while the longest history fits and it is at least `smallest`."""
    while width >= 2 * smallest and longest <= (half := -(-width // 2)):
        width = half
    return width


def pad_to(
    values: np.ndarray, size: int, padding: float = -1, dtype: type = np.int32
) -> np.ndarray:
    """Pads values on the right to an array of `size` elements."""
    out: np.ndarray = np.full(size, padding, dtype)
    out[: len(values)] = values
    return out


def pad_left(
    rows: Sequence[np.ndarray], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pads rows on the left: values_BxH, and mask_BxH, which is False at padding.

    Missing rows are all padding.
    """
    # The newest item is then at the last position, where the user's vector is read.
    values_BxH, mask_BxH = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for b, row in enumerate(rows):
        if len(row):  # [-0:] would be everything
            values_BxH[b, -len(row) :] = row
            mask_BxH[b, -len(row) :] = True
    return values_BxH, mask_BxH
