"""Training rows that were cut from whole sequences, put together again."""

import numpy as np

from recjax.data.dataset import Examples


def merge_prefixes(rows: Examples, history_length: int) -> Examples:
    """One sequence for each user where the rows are its prefixes; else the same rows.

    Files of sliding windows have a row for each event: the events before it, at most a
    number of them, and itself. A tower that answers everywhere reads such a user once
    and not once for each event. Users longer than a window are read in several, and as
    in all of these an early target of one has fewer events before it than its row had.

    Args:
      rows: those of a user in the order of time.
      history_length: of the windows. Rows whose histories were cut shorter stay as they
        are, for joined they would teach longer histories than are asked of.

    Returns:
      Sequences with the same targets, `all_positions`. Ratings of first events are not
      known.
    """
    if rows.all_positions or not len(rows):
        return rows
    order = np.argsort(rows.users_R, kind="stable")
    users_R, targets_R = rows.users_R[order], rows.targets_R[order]
    starts_R, ends_R = rows.starts_R[order], rows.ends_R[order]
    first_R = np.append(True, users_R[1:] != users_R[:-1])
    if not _are_prefixes(rows.flat, starts_R, ends_R, targets_R, first_R):
        return rows
    (begins,) = np.nonzero(first_R)
    lasts = np.append(begins[1:], len(users_R)) - 1
    longest = int(rows.lengths().max())
    if longest < min(history_length, int((lasts - begins).max()) + 1):
        return rows
    # An event before each user's targets; the last target is no history.
    flat = np.insert(targets_R, begins, rows.flat[starts_R[begins]])
    ratings = np.insert(rows.ratings_R[order], begins, np.nan)
    before = np.arange(len(begins))
    return Examples(
        users_R[begins],
        flat,
        begins + before,
        lasts + before + 1,
        targets_R[lasts],
        rows.ratings_R[order][lasts],
        all_positions=True,
        ratings=None if np.isnan(ratings).all() else ratings,
    )


def _are_prefixes(
    flat: np.ndarray,
    starts_R: np.ndarray,
    ends_R: np.ndarray,
    targets_R: np.ndarray,
    first_R: np.ndarray,
) -> bool:
    """Whether each row's history is that of the row before it and what it asked for.

    Args:
      flat, starts_R, ends_R, targets_R: see `Rows`; a user's rows stand together.
      first_R: of a user; its history has one event.
    """
    lengths_R = ends_R - starts_R
    longest = int(lengths_R.max())
    grown_R = np.append(0, np.minimum(lengths_R[:-1] + 1, longest))
    if (lengths_R != np.where(first_R, 1, grown_R)).any():
        return False
    (later,) = np.nonzero(~first_R)
    if (flat[ends_R[later] - 1] != targets_R[later - 1]).any():
        return False
    for back in range(1, longest):
        later = later[lengths_R[later] > back]
        if (flat[ends_R[later] - 1 - back] != flat[ends_R[later - 1] - back]).any():
            return False
    return True
