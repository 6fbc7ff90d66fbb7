"""Times of events in batches."""

import numpy as np
import pytest

from recjax.data.batching.eval_batches import make_queries
from recjax.data.batching.times import pad_times
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.windows import NextItem
from recjax.data.splits import load_data


@pytest.fixture
def data(config):
    return load_data(config)


def test_seconds_count_from_the_oldest_known_event():
    rows = [np.array([np.nan, 2e9 + 0.9, 2e9 + 2.1]), np.array([7.0]), np.zeros(0)]
    want = [[-1, -1, 0, 2], [-1, -1, -1, 0], [-1] * 4, [-1] * 4]
    got = pad_times(rows, (4, 4))
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want)
    # Read backwards, or over a longer time than there are numbers for.
    assert pad_times([np.array([9.0, 4, 0])], (1, 3)).tolist() == [[9, 4, 0]]
    assert pad_times([np.array([0, 1e12])], (1, 2)).tolist() == [[0, 2**31 - 1]]


@pytest.mark.parametrize("reverse", [0.0, 1.0])
def test_training_windows_have_the_times_of_their_items(data, reverse):
    """Also of events of equal time, which are shuffled, and in reversed windows."""
    windows = NextItem(
        data.train,
        6,
        windows="all",
        shuffle_ties=True,
        reverse=reverse,
        with_times=True,
    )
    made = TrainBatches(
        windows, batch_size=4, negatives="all", logq=False, num_items=data.num_items
    )
    batch = made.make_batch(np.arange(4), np.random.default_rng(0))
    for b in range(4):
        example, start, end = windows.windows_Wx3[b]
        items = data.train.sequence(example)[start:end]
        times = data.train.sequence_times(example)[start:end]
        got = batch.times_BxH[b][batch.mask_BxH[b]]
        # The input of a window read backwards has the last event, and not the first.
        oldest = times[1] if reverse else times[0]
        pairs = set(zip(items.tolist(), (times - oldest).tolist(), strict=True))
        shown = batch.history_BxH[b][batch.mask_BxH[b]].tolist()
        assert set(zip(shown, got.tolist(), strict=True)) <= pairs
        assert (np.diff(got) <= 0).all() if reverse else (np.diff(got) >= 0).all()
        assert (batch.times_BxH[b][~batch.mask_BxH[b]] == -1).all()


def test_batches_have_no_times_unless_they_are_read(data):
    windows = NextItem(data.train, 6, windows="all")
    made = TrainBatches(
        windows, batch_size=4, negatives="all", logq=False, num_items=data.num_items
    )
    assert made.make_batch(np.arange(4)).times_BxH is None
    options = {"batch_size": 4, "history_length": 6, "mask_seen": True}
    assert next(make_queries(data.test, **options)).times_BxH is None


def test_queries_have_the_times_of_their_histories(data):
    options = {"batch_size": 4, "history_length": 6, "mask_seen": True}
    batch = next(make_queries(data.test, **options, with_times=True))
    for b in range(4):
        times = data.test.history_times(b)[-6:]
        assert batch.times_BxH[b].tolist() == (times - times[0]).tolist()
