"""Examples that are prefixes are merged into sequences, others stay."""

import numpy as np
import pytest

from recjax.data.batching.sequences import merge_prefixes
from recjax.data.batching.windows import NextItem
from recjax.data.dataset import Examples
from recjax.data.splits import load_data

pytestmark = pytest.mark.unit


def cut(*tasks, ratings=None):
    """Examples of (user, history, target)."""
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
    """An example for each event but the first, the users interleaved."""
    return [
        (user, items[max(end - longest, 0) : end], items[end])
        for end in range(1, max(map(len, sequences.values())))
        for user, items in sequences.items()
        if end < len(items)
    ]


def tasks_of(examples, length):
    """(user, history, target) of all targets of all windows, sorted."""
    windows = NextItem(examples, length, windows="all")
    found = []
    for w, (example, *_) in enumerate(windows.windows_Wx3):
        x = windows.window(w, None)
        for position, target in zip(x.positions, x.targets, strict=True):
            history = x.inputs[: position + 1].tolist()
            found.append((int(examples.users_R[example]), history, int(target)))
    return sorted(found)


SEQUENCES = {4: [1, 2, 2, 5, 3], 0: [7, 8], 2: [9, 9, 4, 9]}


@pytest.mark.parametrize("longest", [4, 10])
def test_targets_and_their_histories_stay_the_same(longest):
    examples = cut(*prefixes(SEQUENCES, longest))
    merged = merge_prefixes(examples, longest)
    assert merged.all_positions
    assert len(merged) == 3
    assert tasks_of(merged, longest) == tasks_of(examples, longest)
    assert len(tasks_of(examples, longest)) == 8


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_truncated_histories(longest):
    merged = merge_prefixes(cut(*prefixes(SEQUENCES, longest)), longest)
    found = {int(u): merged.sequence(r).tolist() for r, u in enumerate(merged.users_R)}
    assert found == SEQUENCES


@pytest.mark.parametrize("longest", [1, 2, 3, 10])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_order_of_the_rows_does_not_matter(longest, seed):
    rows = list(prefixes(SEQUENCES, longest))
    expected = merge_prefixes(cut(*rows), longest)
    if seed is None:
        rows.reverse()  # the longest prefix of a user first
    elif longest == 10:  # the order of truncated histories is that of the file
        np.random.default_rng(seed).shuffle(rows)
    merged = merge_prefixes(cut(*rows), longest)
    np.testing.assert_array_equal(merged.users_R, expected.users_R)
    for i in range(len(expected)):
        np.testing.assert_array_equal(merged.sequence(i), expected.sequence(i))


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_truncated_histories_stay_separate(longest):
    examples = cut(*prefixes(SEQUENCES, longest))
    assert merge_prefixes(examples, longest + 1) is examples


def test_windows_may_be_longer_than_complete_histories():
    examples = cut(*prefixes(SEQUENCES, 4))
    assert len(merge_prefixes(examples, 50)) == 3


def test_ratings_belong_to_their_events():
    examples = cut((0, [1], 2), (1, [5], 6), (0, [1, 2], 3), ratings=[3.0, 1.0, 4.0])
    merged = merge_prefixes(examples, 10)
    np.testing.assert_array_equal(merged.sequence_ratings(0), [np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(merged.sequence_ratings(1), [np.nan, 1.0])


@pytest.mark.parametrize(
    "tasks",
    [
        [(0, [1, 2], 3), (0, [1, 2, 3], 4)],  # the events before are unknown
        [(0, [1], 2), (0, [1, 2, 3], 4)],  # 3 was never a target
        [(0, [1], 2), (0, [1, 5], 4)],
        [(0, [1], 2), (0, [5, 2], 4)],
        [(0, [1], 2), (0, [1, 2], 4), (0, [1, 2, 4], 6), (0, [1, 7, 4, 6], 8)],
        [(0, [1], 2), (0, [2], 4), (1, [1], 2), (1, [1, 2], 3)],  # one is truncated
        [(0, [1], 2), (0, [1], 3)],
        [(0, [], 2), (0, [2], 4)],
    ],
)
def test_other_examples_stay_as_they_are(tasks):
    examples = cut(*tasks)
    assert merge_prefixes(examples, 2) is examples


def test_merged_examples_stay():
    examples = merge_prefixes(cut(*prefixes(SEQUENCES, 10)), 10)
    assert merge_prefixes(examples, 10) is examples


def test_files_of_prefixes_give_the_same_sequences(config):
    c = config.unlock()
    sequences = load_data(c).train
    c.data.split = "fixed"
    merged = merge_prefixes(load_data(c).train, c.data.history_length)
    assert len(merged) == len(sequences)
    for i in range(len(sequences)):
        np.testing.assert_array_equal(merged.sequence(i), sequences.sequence(i))
