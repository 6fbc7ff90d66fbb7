"""Padded shapes: rounds sizes up and fills arrays from the right."""

from collections.abc import Sequence

import numpy as np


def round_up(size: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def round_up_shape(size: int, multiple: int, parts: int) -> int:
    """Rounds up so coarsely that few different sizes, and few compilations, remain.

    There are `parts` sizes between two powers of two, at least 8 apart, and all are
    multiples of `multiple`.
    """
    # The power of two below `size`, in `parts` steps.
    step = max(2 ** (max(size - 1, 1).bit_length() - 1) // parts, 8)
    return round_up(round_up(size, step), multiple)


def pad_to(
    values: np.ndarray, size: int, padding: float = -1, dtype: type = np.int32
) -> np.ndarray:
    """The values, followed by as much padding as makes them an array of this size."""
    out: np.ndarray = np.full(size, padding, dtype)
    out[: len(values)] = values
    return out


def pad_left(
    rows: Sequence[np.ndarray], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """values_BxH with each row at the right end, and mask_BxH, False at padding."""
    # Padding on the left leaves the newest item at the last position, where the user's
    # vector is read.
    values_BxH, mask_BxH = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for b, row in enumerate(rows):
        if len(row):  # [-0:] would be everything
            values_BxH[b, -len(row) :] = row
            mask_BxH[b, -len(row) :] = True
    return values_BxH, mask_BxH
