"""Padded shapes: rounding up, and filling from the right."""

import numpy as np


def round_up(n: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least n."""
    return -(-n // multiple) * multiple


def fill_left(
    out_BxH: np.ndarray, mask_BxH: np.ndarray, b: int, values: np.ndarray
) -> None:
    """Writes values to the right end of row b, and True into its mask."""
    if len(values):
        out_BxH[b, -len(values) :] = values
        mask_BxH[b, -len(values) :] = True


def round_up_shape(n: int, multiple: int, parts: int) -> int:
    """Smallest size of at least n that has few neighbours: few shapes to compile.

    `parts` sizes lie between two powers of two, none closer than 8.
    """
    step = max(2 ** (max(n - 1, 1).bit_length() - 1) // parts, 8)
    return round_up(round_up(n, step), multiple)
