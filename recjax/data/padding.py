"""Padded shapes: rounds sizes up and fills arrays from the right."""

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


def fill_left(
    out_BxH: np.ndarray, mask_BxH: np.ndarray, b: int, values: np.ndarray
) -> None:
    """Writes values to the right end of line b, and True into its mask."""
    # Padding on the left leaves the newest item at the last position, where the user's
    # vector is read.
    if len(values):  # [-0:] would be everything
        out_BxH[b, -len(values) :] = values
        mask_BxH[b, -len(values) :] = True
