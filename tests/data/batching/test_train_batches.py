"""Batches: every event once, every item once, resumable."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from recjax.data.batching.negatives import NEGATIVES
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.windows import MaskedItem, NextItem
from recjax.data.dataset import Examples
from recjax.data.splits import load_data
from recjax.data.text.packing import Packing, Tokens, split_rows

pytestmark = pytest.mark.unit


def batches(examples, history_length=3, windows="last", **changes):
    keys = ("shuffle_ties", "reverse", "augmentation")
    options = {k: changes.pop(k) for k in keys if k in changes}
    if "share" in changes:
        share = changes.pop("share")
        cut = MaskedItem(
            examples, history_length, windows=windows, share=share, **options
        )
    else:
        cut = NextItem(examples, history_length, windows=windows, **options)
    kw = {"batch_size": 4, "negatives": "all", "logq": True, "num_items": 30}
    return TrainBatches(cut, **{**kw, **changes})


def sequences(*items, all_positions=True):
    ends = np.cumsum([len(s) - 1 for s in items])
    return Examples(
        np.arange(len(items)),
        np.concatenate([np.array(s[:-1], np.int32) for s in items]),
        ends - [len(s) - 1 for s in items],
        ends,
        np.array([s[-1] for s in items], np.int32),
        np.full(len(items), np.nan),
        all_positions,
    )


def targets(b):
    """The targets of every user in order."""
    real, length = b.position_P >= 0, b.history_BxH.shape[1]
    return [
        b.targets_P[real & (b.position_P // length == user)].tolist()
        for user in range(len(b.history_BxH))
    ]


def test_layout_by_hand():
    b = batches(sequences([1, 2, 3, 4, 5], [6, 7])).make_batch(np.array([0, 1]))
    assert b.history_BxH.tolist() == [[2, 3, 4], [0, 0, 6], [0] * 3, [0] * 3]
    assert b.targets_P[:4].tolist() == [3, 4, 5, 7]
    assert b.position_P[:4].tolist() == [0, 1, 2, 5]
    assert (b.position_P[4:] == -1).all()
    assert b.mask_BxH.sum(1).tolist() == [3, 1, 0, 0]
    assert targets(b) == [[3, 4, 5], [7], [], []]


def test_pre_cut_examples_have_one_target():
    examples = sequences([1, 2, 3, 4, 5], [6, 7], all_positions=False)
    b = batches(examples).make_batch(np.array([0, 1]))
    assert b.history_BxH[:2].tolist() == [[2, 3, 4], [0, 0, 6]]
    assert targets(b)[:2] == [[5], [7]]
    assert b.position_P[:2].tolist() == [2, 5]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 50])
def test_windows_have_every_event_as_a_target_once(length):
    examples = sequences([1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12])
    b = batches(examples, windows="all", history_length=length)
    found = []
    for w in range(len(b.windows)):
        found += targets(b.make_batch(np.array([w])))[0]
    assert sorted(found) == [2, 3, 4, 5, 6, 7, 9, 11, 12]


def test_in_batch_items_are_distinct_and_counted():
    examples = sequences([1, 2, 1, 2], [2, 1, 3], [4, 5, 2])
    made = batches(examples, negatives="in_batch", logq=False)
    b = made.make_batch(np.array([0, 1, 2]))
    real = b.items.items_U[b.items.items_U >= 0]
    assert real.tolist() == [1, 2, 3, 4, 5]
    # Targets: 2 1 2 | 1 3 | 5 2; item 4 is only in a history.
    weights = np.exp(b.items.log_weight_U)
    assert weights[:5].tolist() == pytest.approx([2, 3, 1, 0, 1])
    assert (weights[5:] == 0).all()
    plain = batches(examples).make_batch(np.array([0, 1, 2]))
    mask = b.mask_BxH
    assert (b.items.items_U[b.history_BxH][mask] == plain.history_BxH[mask]).all()
    assert (b.position_P == plain.position_P).all()
    mask = b.position_P >= 0
    assert (b.items.items_U[b.targets_P][mask] == plain.targets_P[mask]).all()


@pytest.mark.parametrize("size", [2, 3])
def test_logq_makes_the_partition_sum_unbiased(size):
    """Every batch of 4 examples, enumerated: the mean over batches of the weighted sum
    equals the sum over the catalogue; without the correction it does not."""
    examples = sequences([9, 0], [9, 0], [9, 1], [9, 2])
    exp_scores = np.exp([0.3, -1.0, 0.7])

    def mean_sum(logq):
        made = batches(examples, negatives="in_batch", logq=logq)
        sums = []
        for chosen in itertools.combinations(range(4), size):
            items = made.make_batch(np.array(chosen)).items
            real = (items.items_U >= 0) & (items.items_U < 3)
            weights = np.exp(items.log_weight_U[real])
            sums.append((weights * exp_scores[items.items_U[real]]).sum())
        return np.mean(sums)

    np.testing.assert_allclose(mean_sum(True), exp_scores.sum(), rtol=1e-6)
    assert abs(mean_sum(False) - exp_scores.sum()) > 0.05


def test_logq_accounts_for_shuffled_ties():
    """Items 1 and 2 are tied at the start, and the first item is no target: each is one
    in half of the orders. Counted over many orders, the weighted sum is unbiased."""
    examples = dataclasses.replace(
        sequences([1, 2, 3, 4]),
        times=np.array([10.0, 10, 20]),
        target_times_R=np.array([30.0]),
    )
    made = batches(
        examples,
        history_length=5,
        batch_size=1,
        negatives="in_batch",
        shuffle_ties=True,
    )
    assert made.target_freq_N[:6].tolist() == [0, 0.5, 0.5, 1, 1, 0]
    sums = []
    for seed in range(400):
        items = made.make_batch(np.array([0]), np.random.default_rng(seed)).items
        sums.append(np.exp(items.log_weight_U[np.isin(items.items_U, (1, 2, 3))]).sum())
    assert set(sums) == {3.0}  # 1 / 0.5 for one of the two, 1 for item 3
    last = batches(
        dataclasses.replace(
            examples, all_positions=False, times=np.array([10.0, 10, 30])
        ),
        negatives="in_batch",
        shuffle_ties=True,
    )
    assert last.target_freq_N[:6].tolist() == [0, 0, 0, 0.5, 0.5, 0]


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "mixed"])
def test_sampled_negatives_estimate_the_catalogue(negatives):
    """Weighted by 1 / expected count, a sum over the sample estimates the sum over all
    items that can be sampled; without logQ the weights are counts."""
    examples = sequences([1, 2, 3, 4], [3, 4, 5])
    made = batches(
        examples, batch_size=1, num_items=9, negatives=negatives, num_negatives=40
    )
    value_N = np.arange(9) ** 2.0
    sums = []
    for seed in range(600):
        chosen = np.array([seed % 2])
        items = made.make_batch(chosen, np.random.default_rng(seed)).items
        real = items.items_U >= 0
        weight = np.exp(items.log_weight_U[real])
        sums.append((weight * value_N[items.items_U[real]]).sum())
    possible = np.arange(9) if negatives != "popularity" else np.array([2, 3, 4, 5])
    assert np.mean(sums) == pytest.approx(value_N[possible].sum(), rel=0.03)
    assert np.std(sums) > 0
    made = batches(examples, negatives=negatives, num_negatives=40, logq=False)
    b = made.make_batch(np.array([0]), np.random.default_rng(0))
    counts = np.exp(b.items.log_weight_U).sum()
    assert counts == pytest.approx(43 if negatives == "mixed" else 40)


def test_strategies_declare_what_they_need():
    assert all(name == strategy.name for name, strategy in NEGATIVES.items())
    flags = ("needs_whole_catalogue", "is_stale", "needs_target_freq")
    found = {
        flag: {name for name, strategy in NEGATIVES.items() if getattr(strategy, flag)}
        for flag in flags
    }
    assert found == {
        "needs_whole_catalogue": {"all"},
        "is_stale": {"stale"},
        "needs_target_freq": {"in_batch", "popularity", "mixed"},
    }


def test_stale_negatives_are_the_catalogue():
    made = batches(sequences([1, 2, 3, 4]), negatives="stale", num_items=9)
    b = made.make_batch(np.array([0]))
    assert b.items.items_U[b.items.items_U >= 0].tolist() == [1, 2, 3, 4]
    assert targets(b)[0] == [2, 3, 4]
    assert b.items.log_weight_U.tolist() == [0] * 9


def test_windows_are_reversed():
    examples = sequences([1, 2, 3, 4])
    made = batches(examples, batch_size=1, negatives="in_batch", reverse=0.25)
    assert made.target_freq_N[:6].tolist() == [0, 0.25, 1, 1, 0.75, 0]
    drawn, sums = [], []
    for seed in range(400):
        items = (b := made.make_batch(np.array([0]), np.random.default_rng(seed))).items
        drawn.append(items.items_U[targets(b)[0]].tolist())
        sums.append(np.exp(items.log_weight_U[items.items_U >= 0]).sum())
    assert set(map(tuple, drawn)) == {(2, 3, 4), (3, 2, 1)}
    assert np.mean([d == [3, 2, 1] for d in drawn]) == pytest.approx(0.25, abs=0.07)
    assert np.mean(sums) == pytest.approx(4, rel=0.1)
    cut = sequences([1, 2, 3, 4], all_positions=False)  # the target is the last one
    b = batches(cut, reverse=1.0).make_batch(np.array([0]), np.random.default_rng(0))
    assert targets(b)[0] == [4]


def test_ties_are_shuffled_in_training_and_nothing_else():
    examples = dataclasses.replace(
        sequences([1, 2, 3, 4, 5, 6]),
        times=np.array([10.0, 10, 20, 30, 30]),
        target_times_R=np.array([30.0]),
    )

    def drawn(**changes):
        made = batches(examples, history_length=5, batch_size=1, **changes)
        out = set()
        for seed in range(60):
            b = made.make_batch(np.array([0]), np.random.default_rng(seed))
            out.add((b.history_BxH[0, 0], *targets(b)[0]))
        return out

    assert drawn(shuffle_ties=False) == {(1, 2, 3, 4, 5, 6)}
    ties = itertools.product(
        itertools.permutations([1, 2]), itertools.permutations([4, 5, 6])
    )
    assert drawn(shuffle_ties=True) == {(*a, 3, *b) for a, b in ties}


def test_an_epoch_is_a_shuffled_pass(config):
    examples = load_data(config).train
    made = batches(examples, batch_size=16)

    def epoch(stream):
        out = [next(stream) for _ in range(made.steps_per_epoch)]
        return [x for b in out for x in targets(b) if x]

    stream = iter(made)
    first, second = epoch(stream), epoch(stream)
    assert len(first) == len(second) == len(examples)
    assert first != second
    assert sorted(map(tuple, first)) == sorted(map(tuple, second))


def test_iterator_resumes_where_it_was(config):
    made = batches(load_data(config).train)
    stream = iter(made)
    for _ in range(7):
        next(stream)
    state = stream.get_state()
    expected = [next(stream).targets_P for _ in range(12)]
    again = iter(batches(load_data(config).train))
    again.set_state(state)
    for want in expected:
        np.testing.assert_array_equal(next(again).targets_P, want)


def test_little_padding_where_most_histories_are_short():
    lengths = np.where(np.arange(300) % 9 == 8, 60, 3 + np.arange(300) % 2)
    examples = sequences(*(np.arange(n) % 30 for n in lengths))
    made = batches(examples, batch_size=40, history_length=50)
    stream, sizes = iter(made), []
    for _ in range(50):
        b = next(stream)
        sizes.append(len(b.position_P))
        real = b.position_P >= 0
        history = b.history_BxH.ravel()[b.position_P[real]]
        assert (np.where(history == 29, 0, history + 1) == b.targets_P[real]).all()
        assert real.sum() == b.mask_BxH.sum()
    assert max(sizes) < 40 * 50
    longest = np.flatnonzero(np.diff(made.windows.windows_Wx3[:, 1:])[:, 0] > 50)[:40]
    assert len(made.make_batch(longest).position_P) == 40 * 50  # a batch of long ones


def test_number_of_shapes_is_bounded():
    """Histories and texts of several lengths."""
    rng = np.random.default_rng(0)
    examples = sequences(*(rng.integers(0, 25, 2 + i % 5) for i in range(40)))
    made = batches(examples, negatives="in_batch", history_length=6, num_items=25)
    lengths = np.arange(25) % 5 + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    made.packing = Packing(Tokens(np.zeros(offsets[-1], np.int32), offsets), 16)
    stream, shapes = iter(made), set()
    for _ in range(50):
        batch = next(stream)
        shapes.add(tuple(x.shape for x in jax.tree.leaves(batch)))
    assert len(shapes) <= 3


def test_packing_keeps_every_token():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 13, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(np.arange(offsets[-1], dtype=np.int32), offsets)
    items_U = np.append(rng.permutation(40)[:25], -1).astype(np.int32)
    least = len(Packing(tokens, 16).pack(items_U).index_RxL)
    p = Packing(tokens, 16).pack(items_U).fill_up(least + 3)
    filled = p.segment_RxL > 0
    assert len(filled) == least + 3
    assert not filled[least:].any()
    assert filled.sum() == lengths[items_U[:-1]].sum()
    # The fewest possible rows, or one more.
    assert least <= -(-filled.sum() // 16) + 1
    for u, row in enumerate(items_U[:-1]):
        mine = p.owner_RxL == u
        assert p.index_RxL[mine].tolist() == list(range(*offsets[row : row + 2]))
        assert p.position_RxL[mine].tolist() == list(range(lengths[row]))
        assert len(set(p.segment_RxL[mine])) == 1
        assert p.index_RxL.ravel()[p.first_U[u]] == offsets[row]
    assert (p.owner_RxL[~filled] == len(items_U)).all()


@pytest.mark.parametrize("num_rows", [1, 3, 4, 50])
def test_parts_of_packed_rows_hold_every_text_once(num_rows):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 13, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(np.arange(offsets[-1], dtype=np.int32), offsets)
    packed = Packing(tokens, 16).pack(np.arange(40))
    parts = split_rows(packed, num_rows)
    assert len(parts) == -(-len(packed.index_RxL) // num_rows)
    assert len({(len(texts), p.index_RxL.shape) for texts, p in parts}) == 1
    seen = []
    for texts, p in parts:
        for u, text in enumerate(texts):
            mine = p.owner_RxL == u
            if text < 0:
                assert not mine.any()
                continue
            seen.append(text)
            assert p.index_RxL[mine].tolist() == list(range(*offsets[text : text + 2]))
            assert p.position_RxL[mine].tolist() == list(range(lengths[text]))
            assert p.index_RxL.ravel()[p.first_U[u]] == offsets[text]
        assert (p.owner_RxL[p.segment_RxL == 0] == len(texts)).all()
    assert sorted(seen) == list(range(40))


def test_masked_items_are_the_targets():
    examples = sequences([1, 2, 3, 4, 5], [6, 7])
    made = batches(examples, share=0.5, batch_size=2)
    plain = made.make_batch(np.array([0, 1]))  # the newest is hidden
    assert plain.hidden_BxH.tolist() == [[False, False, True]] * 2
    assert plain.history_BxH.tolist() == [[3, 4, 0], [0, 6, 0]]
    assert targets(plain) == [[5], [7]]
    seen = set()
    for seed in range(60):
        b = made.make_batch(np.array([0, 1]), np.random.default_rng(seed))
        items = np.where(b.hidden_BxH, -1, b.history_BxH)
        positions = b.position_P[b.position_P >= 0]
        assert sorted(positions) == np.flatnonzero(b.hidden_BxH).tolist()
        items.reshape(-1)[positions] = b.targets_P[b.position_P >= 0]
        assert items[b.mask_BxH].tolist() == [3, 4, 5, 6, 7]
        assert b.hidden_BxH.any(axis=1).all()
        seen.add(tuple(b.hidden_BxH[0]))
    assert len(seen) == 7


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_logq_counts_masked_items(share):
    examples = sequences([1, 2, 3, 4, 5, 6], [1, 7])
    made = batches(examples, share=share, negatives="in_batch", history_length=4)
    counts = np.zeros(30)
    for seed in range(4000):
        for w in range(2):
            window = made.windows.window(w, np.random.default_rng(2 * seed + w))
            np.add.at(counts, window.targets, 1)
    np.testing.assert_allclose(made.target_freq_N * 2, counts / 4000, atol=0.03)
    number = counts.sum() / 8000
    assert made.windows.count_targets()[0] == pytest.approx(number, abs=0.03)


def test_only_the_target_of_pre_cut_examples_is_masked():
    examples = sequences([1, 2, 3, 4], all_positions=False)
    b = batches(examples, share=0.5).make_batch(np.array([0]), np.random.default_rng(0))
    assert b.hidden_BxH[0].tolist() == [False, False, True]
    assert targets(b)[0] == [4]


def test_labels_belong_to_their_targets():
    examples = dataclasses.replace(
        sequences([1, 2, 3, 4]),
        ratings=np.array([5.0, 2, 4]),
        ratings_R=np.array([1.0]),
    )
    b = batches(examples, like=4.0).make_batch(np.array([0]))
    assert targets(b)[0] == [2, 3, 4]
    assert b.label_P[b.position_P >= 0].tolist() == [0, 1, 0]


def test_an_unknown_rating_is_not_a_dislike():
    examples = dataclasses.replace(
        sequences([1, 2, 3, 4]),
        ratings=np.array([5.0, np.nan, 4]),
        ratings_R=np.array([1.0]),
    )
    b = batches(examples, like=4.0, rated_only=True).make_batch(np.array([0]))
    assert targets(b)[0] == [3, 4]
    assert b.label_P[b.position_P >= 0].tolist() == [1, 0]
    b = batches(examples, like=4.0).make_batch(np.array([0]))
    assert targets(b)[0] == [2, 3, 4]
    assert b.label_P[b.position_P >= 0].tolist() == [-1, 1, 0]


def test_likes_of_histories_are_those_before_each_target():
    examples = dataclasses.replace(
        sequences([1, 2, 3, 4]),
        ratings=np.array([5.0, np.nan, 2]),
        ratings_R=np.array([4.0]),
    )
    b = batches(examples, like=4.0).make_batch(np.array([0]))
    assert b.liked_BxH[b.mask_BxH].tolist() == [1, -1, 0]
    assert batches(examples).make_batch(np.array([0])).liked_BxH is None
