"""Merges examples that are prefixes of a sequence back into that sequence."""

import numpy as np

from recjax.data.dataset import Examples


def merge_prefixes(examples: Examples, history_length: int) -> Examples:
    """Merges the examples of each user into one sequence if they are its prefixes.

    Files of sliding windows have a row for each event: the preceding events, up to a
    maximum number, and the event as the target. A user tower with targets at all
    positions can read such a user once instead of once per event. Sequences longer than
    `history_length` are read in several windows; early targets of a window are then
    predicted from fewer events than are in their rows.

    Returns:
      Sequences with the same targets and `all_positions`; the rating of a user's first
      event is unknown. If any examples are not prefixes, `examples` itself.
    """
    if examples.all_positions or not len(examples):
        return examples
    found = _order_prefixes(examples)
    if found is None:
        return examples
    ordered, first_R = found
    users_R, targets_R = ordered.users_R, ordered.targets_R
    (first,) = np.nonzero(first_R)
    last = np.append(first[1:], len(users_R)) - 1
    # Truncated histories stay separate: merging would train on longer histories than
    # evaluation uses.
    longest = int(examples.lengths().max())
    if longest < min(history_length, int((last - first).max()) + 1):
        return examples
    # A sequence is its first event, which is no target, and then all targets. The
    # history ends before the last target.
    items = np.insert(targets_R, first, ordered.items[ordered.starts_R[first]])
    ratings = np.insert(ordered.ratings_R, first, np.nan)
    num_inserted = np.arange(len(first))
    return Examples(
        users_R[first],
        items,
        first + num_inserted,
        last + num_inserted + 1,
        targets_R[last],
        ordered.ratings_R[last],
        all_positions=True,
        ratings=None if np.isnan(ratings).all() else ratings,
    )


def _order_prefixes(examples: Examples) -> tuple[Examples, np.ndarray] | None:
    """Sorts the examples by user and length of the history, if they are prefixes.

    Histories that were truncated have equal lengths. Their order is that of the file,
    which may begin with the shortest or with the longest prefix of a user.

    Returns:
      The examples, and first_R, which marks the first one of each user.
    """
    lengths_R, file_R = examples.lengths(), np.arange(len(examples))
    for order_R in (file_R, -file_R):
        ordered = examples.take(np.lexsort((order_R, lengths_R, examples.users_R)))
        users_R = ordered.users_R
        first_R = np.append(True, users_R[1:] != users_R[:-1])
        if _are_prefixes(ordered, first_R):
            return ordered, first_R
    return None


def _are_prefixes(examples: Examples, first_R: np.ndarray) -> bool:
    """Whether each history is the previous example's history followed by its target.

    The examples are sorted by user. `first_R` marks the first one of each user, whose
    history must be a single event.
    """
    items, ends_R, lengths_R = examples.items, examples.ends_R, examples.lengths()
    longest = int(lengths_R.max())  # longer histories were truncated on the left
    expected_R = np.append(0, np.minimum(lengths_R[:-1] + 1, longest))
    if (lengths_R != np.where(first_R, 1, expected_R)).any():
        return False
    (later,) = np.nonzero(~first_R)
    if (items[ends_R[later] - 1] != examples.targets_R[later - 1]).any():
        return False
    # Compare from the newest event backwards, one array operation for all examples.
    for back in range(1, longest):
        later = later[lengths_R[later] > back]
        newer, older = ends_R[later] - 1 - back, ends_R[later - 1] - back
        if (items[newer] != items[older]).any():
            return False
    return True
