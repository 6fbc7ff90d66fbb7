"""Repeated items in histories."""

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)


def repeated(history_BxH: Array, mask_BxH: Array) -> Array:
    """True where the item already occurred earlier in the history: bool_BxH."""
    length = history_BxH.shape[1]
    earlier_1xHxH = np.tril(np.ones((1, length, length), bool), -1)
    same_BxHxH = history_BxH[:, :, None] == history_BxH[:, None]
    both_BxHxH = mask_BxH[:, :, None] & mask_BxH[:, None]
    return (same_BxHxH & both_BxHxH & earlier_1xHxH).any(axis=2)
