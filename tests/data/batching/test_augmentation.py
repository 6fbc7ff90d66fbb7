"""Augmented windows: what changes, and that no target can be seen too early."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recjax.data.batching.augmentation import (
    TRANSFORMATIONS,
    Augmentation,
    mask,
    positions_before,
    reorder,
    substitute,
)
from recjax.data.batching.windows import NextItem
from tests.data.batching.test_train_batches import batches, sequences

pytestmark = pytest.mark.unit

NEIGHBOURS = (np.arange(40)[:, None] + [1, 20, 21]) % 40


def augment(rate=1.0, **shares):
    return Augmentation(rate, shares, NEIGHBOURS)


def cut(augmentation, *items, all_positions=True, length=50):
    examples = sequences(*items, all_positions=all_positions)
    options = {"windows": "last", "augmentation": augmentation}
    return NextItem(examples, length, **options)


def drawn(windows, number=300, w=0):
    return [windows.window(w, np.random.default_rng(seed)) for seed in range(number)]


def test_a_share_of_zero_changes_nothing_and_draws_nothing():
    items = np.arange(10), np.arange(12, 30)
    for off in (augment(crop=0.0, mask=0.0), augment(0.0, mask=0.5), Augmentation()):
        rng = np.random.default_rng(0)
        before = rng.bit_generator.state
        window = cut(off, *items).window(1, rng)
        assert rng.bit_generator.state == before
        plain = cut(None, *items).window(1, None)
        for mine, other in zip(window[:3], plain[:3], strict=True):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_batches_are_those_without_augmentation_or_resume(name):
    """A rate of zero gives the same batches; a rate above zero others, which resume."""
    examples = sequences(*(np.arange(5 + i % 7) + i for i in range(20)))
    options = {"history_length": 8, "negatives": "in_batch", "num_items": 40}

    def stream(augmentation):
        made = batches(examples, augmentation=augmentation, **options)
        return iter(made)

    def same(a, b):
        values = [(x.history_BxH, x.targets_P, x.items.items_U) for x in (a, b)]
        return all(np.array_equal(*pair) for pair in zip(*values, strict=True))

    plain, off = stream(None), stream(augment(0.0, **{name: 0.4}))
    on, again = (stream(augment(0.5, **{name: 0.4})) for _ in range(2))
    differs = False
    for step in range(12):
        batch = next(plain)
        assert same(batch, next(off))
        changed = next(on)
        differs |= not same(batch, changed)
        if step < 5:
            state = on.get_state()
        elif step == 5:
            again.set_state(state)
        if step >= 5:
            assert same(changed, next(again))
    assert differs


@given(
    size=st.integers(1, 30),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 10_000),
    name=st.sampled_from(["mask", "reorder"]),
)
def test_targets_are_predicted_from_older_events_only(size, share, seed, name):
    change = {"mask": mask, "reorder": reorder}[name]
    events = change(size, share, np.random.default_rng(seed))
    targets = np.arange(1, size + 1)
    positions = positions_before(events, targets)
    assert events[0] == 0
    if name == "reorder":
        assert sorted(events) == list(range(size))
    else:
        assert (np.diff(events) > 0).all()
        assert size - len(events) == min(max(round(share * size), 1), size - 1)
    for target, position in zip(targets, positions, strict=True):
        assert max(events[: position + 1]) < target
        # The next position would have seen the target, or an event after it.
        assert position == len(events) - 1 or events[position + 1] >= target


def test_positions_by_hand():
    targets = np.arange(1, 6)
    for events, positions in (
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        ([0, 3, 1, 2, 4], [0, 0, 0, 3, 4]),  # 1 and 2 stand after 3: nothing before 3
        ([0, 2, 1, 3, 4], [0, 0, 2, 3, 4]),
        ([0, 3], [0, 0, 0, 1, 1]),
        ([0], [0, 0, 0, 0, 0]),
    ):
        assert positions_before(np.array(events), targets).tolist() == positions


def test_mask_keeps_targets():
    found = set()
    for window in drawn(cut(augment(mask=0.5), [1, 2, 3, 4, 5])):
        assert window.targets.tolist() == [2, 3, 4, 5]
        pairs = zip(window.targets, window.inputs[window.positions], strict=True)
        assert all(item < target for target, item in pairs)
        found.add((*window.inputs, -1, *window.positions))
    # Two of four inputs; the first one always stays.
    assert found == {
        (1, 2, -1, 0, 1, 1, 1),
        (1, 3, -1, 0, 0, 1, 1),
        (1, 4, -1, 0, 0, 0, 1),
    }


def test_reorder_shuffles_a_part():
    windows = drawn(cut(augment(reorder=0.5), [1, 2, 3, 4, 5]))
    found = {(*w.inputs, -1, *w.positions) for w in windows}
    assert found == {
        (1, 2, 3, 4, -1, 0, 1, 2, 3),
        (1, 3, 2, 4, -1, 0, 0, 2, 3),  # 3 may not be predicted after itself
        (1, 2, 4, 3, -1, 0, 1, 1, 3),
    }
    assert all(w.targets.tolist() == [2, 3, 4, 5] for w in windows)


def test_crop_keeps_a_part_of_inputs_and_targets():
    windows = drawn(cut(augment(crop=0.4), [1, 2, 3, 4, 5]))
    found = {(*w.inputs, -1, *w.targets) for w in windows}
    assert found == {(1, 2, -1, 2, 3), (2, 3, -1, 3, 4), (3, 4, -1, 4, 5)}
    assert all(w.positions.tolist() == [0, 1] for w in windows)
    rated = dataclasses.replace(
        sequences([1, 2, 3, 4, 5]),
        ratings=np.arange(1.0, 5),
        ratings_R=np.array([5.0]),
    )
    rated = NextItem(rated, 50, windows="last", augmentation=augment(crop=0.4))
    assert all((w.ratings == w.targets).all() for w in drawn(rated))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_pre_cut_examples_keep_their_target(name):
    windows = drawn(
        cut(augment(**{name: 0.5}), [1, 2, 3, 4, 5], all_positions=False), 50
    )
    for window in windows:
        assert window.targets.tolist() == [5]
        assert window.positions.tolist() == [len(window.inputs) - 1]
        assert 5 not in window.inputs
    if name == "crop":  # the newest events: others may be no targets
        assert {tuple(w.inputs) for w in windows} == {(3, 4)}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_the_shortest_window_has_its_target(name):
    for window in drawn(cut(augment(**{name: 0.9}), [1, 2]), 20):
        assert window.targets.tolist() == [2]
        assert window.positions.tolist() == [0]
        inputs = [21, 22] if name == "substitute" else [1]  # 1 and its neighbour 2
        assert window.inputs.tolist() in [[item] for item in inputs]


def test_substitutes_are_neighbours_that_are_not_in_the_window():
    items, counts = [1, 2, 3, 21, 9], {}
    for window in drawn(cut(augment(substitute=0.5), items), 2000):
        assert window.targets.tolist() == items[1:]
        assert window.positions.tolist() == [0, 1, 2, 3]
        for old, new in zip(items, window.inputs, strict=False):
            if old != new:
                assert new in NEIGHBOURS[old]
                assert new not in items
            counts[old, new] = counts.get((old, new), 0) + 1
    # Of 1 the neighbours 2 and 21 are in the window, of 2 the neighbour 3.
    assert {pair for pair in counts if pair[0] < 3} == {
        (1, 1),
        (1, 22),
        (2, 2),
        (2, 22),
        (2, 23),
    }
    assert counts[1, 22] == pytest.approx(1000, rel=0.15)
    assert counts[2, 22] == pytest.approx(500, rel=0.2)
    assert counts[2, 23] == pytest.approx(500, rel=0.2)


def test_an_item_without_a_free_neighbour_stays():
    neighbours = np.array([[1, 2], [0, 1], [1, 1]])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert substitute(np.array([0, 1, 2]), 1.0, neighbours, rng).tolist() == [0, 1]


def test_the_rate_is_the_fraction_of_transformed_windows():
    """Shared equally by the transformations that have a share."""
    augmentation = augment(0.6, crop=0.5, reorder=0.0, substitute=0.5)
    items = np.arange(10)
    plain = cut(None, items).window(0, None).inputs
    kinds = {"none": 0, "crop": 0, "substitute": 0}
    for window in drawn(cut(augmentation, items), 2000):
        kind = "substitute" if len(window.inputs) == len(plain) else "crop"
        kinds["none" if np.array_equal(window.inputs, plain) else kind] += 1
    assert kinds["none"] == pytest.approx(800, rel=0.1)
    assert kinds["crop"] == pytest.approx(600, rel=0.1)
    assert kinds["substitute"] == pytest.approx(600, rel=0.1)


@pytest.mark.parametrize("reverse", [0.0, 0.3])
@pytest.mark.parametrize("all_positions", [True, False])
def test_logq_counts_cropped_windows(reverse, all_positions):
    examples = sequences(
        [1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12], all_positions=all_positions
    )
    made = batches(
        examples,
        augmentation=augment(0.6, crop=0.4, mask=0.3),
        reverse=reverse,
        history_length=6,
        negatives="in_batch",
    )
    counts, sizes = np.zeros(30), []
    rng = np.random.default_rng(0)
    for _ in range(6000):
        for w in range(3):
            targets = made.windows.window(w, rng).targets
            np.add.at(counts, targets, 1)
            sizes.append(len(targets))
    np.testing.assert_allclose(made.target_freq_N * 3, counts / 6000, atol=0.03)
    mean, variance = made.windows.count_targets()
    assert mean == pytest.approx(np.mean(sizes), abs=0.03)
    assert variance == pytest.approx(np.var(sizes), abs=0.1)
