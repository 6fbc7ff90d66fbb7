"""Which items a history had before."""

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)


def repeated(history_BxH: Array, mask_BxH: Array) -> Array:
    """Where an item stands that an older place has too: bool_BxH.

    Args:
      history_BxH: items, by any numbering.
      mask_BxH: which of them are there.
    """
    length = history_BxH.shape[1]
    older_1xHxH = np.tril(np.ones((1, length, length), bool), -1)
    same_BxHxH = history_BxH[:, :, None] == history_BxH[:, None]
    both_BxHxH = mask_BxH[:, :, None] & mask_BxH[:, None]
    return (same_BxHxH & both_BxHxH & older_1xHxH).any(axis=2)
