"""Rows that were cut as prefixes become whole sequences, others stay."""

import numpy as np
import pytest

from recjax.data.batching.sequences import merge_prefixes
from recjax.data.batching.windows import NextItem
from recjax.data.dataset import Examples
from recjax.data.splits import load_data


def cut(*tasks, ratings=None):
    """Rows of (user, history, target)."""
    users, histories, targets = zip(*tasks, strict=True)
    lengths = np.array([len(h) for h in histories])
    ends = np.cumsum(lengths)
    return Examples(
        np.array(users, np.int32),
        np.concatenate([np.array(h, np.int32) for h in histories]),
        ends - lengths,
        ends,
        np.array(targets, np.int32),
        np.full(len(targets), np.nan) if ratings is None else np.array(ratings),
    )


def prefixes(sequences, longest):
    """A row for each event but the first, users' rows between one another's."""
    return [
        (user, items[max(end - longest, 0) : end], items[end])
        for end in range(1, max(map(len, sequences.values())))
        for user, items in sequences.items()
        if end < len(items)
    ]


def asked(rows, length):
    """(user, history, target) of everything that windows ask, sorted."""
    windows = NextItem(rows, length, windows="all")
    found = []
    for w, (row, *_) in enumerate(windows.windows_Wx3):
        x = windows.window(w, None)
        for place, target in zip(x.positions, x.targets, strict=True):
            history = x.inputs[: place + 1].tolist()
            found.append((int(rows.users_R[row]), history, int(target)))
    return sorted(found)


SEQUENCES = {4: [1, 2, 2, 5, 3], 0: [7, 8], 2: [9, 9, 4, 9]}


@pytest.mark.parametrize("longest", [4, 10])
def test_the_same_is_asked_after_the_same(longest):
    rows = cut(*prefixes(SEQUENCES, longest))
    whole = merge_prefixes(rows, longest)
    assert whole.all_positions
    assert len(whole) == 3
    assert asked(whole, longest) == asked(rows, longest)
    assert len(asked(rows, longest)) == 8


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_histories_that_were_cut(longest):
    whole = merge_prefixes(cut(*prefixes(SEQUENCES, longest)), longest)
    found = {int(u): whole.sequence(r).tolist() for r, u in enumerate(whole.users_R)}
    assert found == SEQUENCES


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_windows_longer_than_what_was_cut_would_teach_what_is_not_asked(longest):
    rows = cut(*prefixes(SEQUENCES, longest))
    assert merge_prefixes(rows, longest + 1) is rows


def test_windows_may_be_longer_than_what_is_whole():
    rows = cut(*prefixes(SEQUENCES, 4))
    assert len(merge_prefixes(rows, 50)) == 3


def test_ratings_go_with_their_events():
    rows = cut((0, [1], 2), (1, [5], 6), (0, [1, 2], 3), ratings=[3.0, 1.0, 4.0])
    whole = merge_prefixes(rows, 10)
    np.testing.assert_array_equal(whole.sequence_ratings(0), [np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(whole.sequence_ratings(1), [np.nan, 1.0])


@pytest.mark.parametrize(
    "tasks",
    [
        [(0, [1, 2], 3), (0, [1, 2, 3], 4)],  # what came before is not known
        [(0, [1], 2), (0, [1, 2, 3], 4)],  # 3 was never asked for
        [(0, [1], 2), (0, [1, 5], 4)],
        [(0, [1], 2), (0, [5, 2], 4)],
        [(0, [1], 2), (0, [1, 2], 4), (0, [1, 2, 4], 6), (0, [1, 7, 4, 6], 8)],
        [(0, [1], 2), (0, [2], 4), (1, [1], 2), (1, [1, 2], 3)],  # one is cut shorter
        [(0, [1], 2), (0, [1], 3)],
        [(0, [], 2), (0, [2], 4)],
    ],
)
def test_other_rows_stay_as_they_are(tasks):
    rows = cut(*tasks)
    assert merge_prefixes(rows, 2) is rows


def test_a_split_that_is_whole_stays():
    rows = merge_prefixes(cut(*prefixes(SEQUENCES, 10)), 10)
    assert merge_prefixes(rows, 10) is rows


def test_files_of_prefixes_are_the_same_as_whole_ones(config):
    c = config.unlock()
    whole = load_data(c).train
    c.data.split = "fixed"
    joined = merge_prefixes(load_data(c).train, c.data.history_length)
    assert len(joined) == len(whole)
    for row in range(len(whole)):
        np.testing.assert_array_equal(joined.sequence(row), whole.sequence(row))
