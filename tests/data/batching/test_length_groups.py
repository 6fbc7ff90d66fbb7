"""Batches of windows of similar length."""

import itertools

import numpy as np
import pytest

from tests.data.batching.test_train_batches import batches, sequences, targets

# Lengths 1 to 16, three windows of each: H, a half, a quarter and an eighth of it.
EXAMPLES = sequences(*(range(n + 1) for n in range(1, 17) for _ in range(3)))


def grouped(**changes):
    return batches(EXAMPLES, 16, by_length=True, **changes)


def test_an_epoch_has_every_window_once_in_narrow_batches():
    made = grouped(seed=3)
    steps = made.steps_per_epoch
    epochs = [list(itertools.islice(made, steps * n)) for n in (1, 2)]
    for epoch in (epochs[0], epochs[1][:steps], epochs[1][steps:]):
        shown = np.concatenate([b.examples_B for b in epoch])
        assert sorted(shown[shown >= 0].tolist()) == list(range(48))
    widths = [b.mask_BxH.shape[1] for b in epochs[0]]
    assert set(widths) == {2, 4, 8, 16}
    assert widths != sorted(widths)  # the order of the batches is random
    for b in epochs[0]:
        longest = b.mask_BxH.sum(1).max()
        assert b.mask_BxH.shape[1] / 2 < longest <= b.mask_BxH.shape[1]
    order = [[b.examples_B.tolist() for b in epoch] for epoch in epochs]
    assert order[0] == order[1][:steps] != order[1][steps:]


@pytest.mark.parametrize("changes", [{}, {"share": 0.5}, {"negatives": "in_batch"}])
def test_a_narrow_batch_has_the_inputs_and_targets_of_a_wide_one(changes):
    chosen = np.array([0, 3, 6])  # at most four events with the target
    narrow = grouped(**changes).make_batch(chosen)
    wide = batches(EXAMPLES, 16, **changes).make_batch(chosen)
    assert narrow.mask_BxH.shape == (4, 4)
    np.testing.assert_array_equal(narrow.mask_BxH, wide.mask_BxH[:, -4:])
    np.testing.assert_array_equal(narrow.history_BxH, wide.history_BxH[:, -4:])
    assert targets(narrow) == targets(wide)
    real = narrow.position_P >= 0
    np.testing.assert_array_equal(
        narrow.position_P[real] % 4, wide.position_P[wide.position_P >= 0] % 16 - 12
    )
    assert len(narrow.position_P) <= 16  # targets are not padded to those of long ones


def test_an_interrupted_epoch_goes_on_with_the_same_batches():
    made = grouped()
    iterator = iter(made)
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    want = [next(iterator).examples_B.tolist() for _ in range(12)]
    resumed = iter(grouped())
    resumed.set_state(state)
    assert [next(resumed).examples_B.tolist() for _ in range(12)] == want
