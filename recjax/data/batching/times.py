"""The times of events as arrays of a batch."""

from collections.abc import Sequence

import numpy as np

UNKNOWN = -1
MAX_SECONDS = 2**31 - 1  # 68 years, the largest int32


def pad_times(rows: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pads times on the left: times_BxH, seconds since the oldest event of the row.

    Args:
      rows: times in seconds from any start, as floats; NaN where unknown.
      shape: B and H.

    Returns:
      int32, -1 where unknown and at padding. Seconds since 1970 would leave no room for
      later dates.
    """
    times_BxH = np.full(shape, UNKNOWN, np.int32)
    for b, row in enumerate(rows):
        known = np.isfinite(row)
        if known.any():
            # Rounded before the difference, so that it is the same in every window.
            seconds = np.floor(row[known])
            elapsed = np.minimum(seconds - seconds.min(), MAX_SECONDS)
            times_BxH[b, shape[1] - len(row) :][known] = elapsed.astype(np.int32)
    return times_BxH


def unknown_times(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns unknown times for the events of histories."""
    return [np.full(len(row), np.nan) for row in rows]
