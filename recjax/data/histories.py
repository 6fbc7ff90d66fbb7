"""The complete history of every user, over all splits."""

import numpy as np

from recjax.data.dataset import Data, Examples


def complete_histories(data: Data) -> dict[int, np.ndarray]:
    """Returns the item indices of every user, oldest first, by user index.

    Test events are included: they are what a recommendation for today follows. Where
    items were held out of the histories, the events with these items are included too.
    """
    return {user: x.sequence(row) for user, (x, row) in _longest(data).items()}


def complete_times(data: Data) -> dict[int, np.ndarray]:
    """Returns the times of the events of `complete_histories`, which must be known."""
    found = {user: x.sequence_times(row) for user, (x, row) in _longest(data).items()}
    return {user: times for user, times in found.items() if times is not None}


def _longest(data: Data) -> dict[int, tuple[Examples, int]]:
    """Returns the newest example of every user, and its row, in order of the users."""
    found: dict[int, tuple[Examples, int]] = {}
    # The newest example of a user has the longest history; test events are the newest.
    for examples in (data.test, data.valid, data.train):
        complete = examples.seen_items or examples
        longest: dict[int, int] = {}
        for row, user in enumerate(complete.users_R.tolist()):
            best = longest.get(user)
            if best is None or _length(complete, row) >= _length(complete, best):
                longest[user] = row
        for user, row in longest.items():
            found.setdefault(user, (complete, row))
    return dict(sorted(found.items()))


def _length(examples: Examples, row: int) -> int:
    return int(examples.ends_R[row] - examples.starts_R[row])
