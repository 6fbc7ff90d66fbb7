"""Queries: seen items, and batches by length."""

import dataclasses

import numpy as np
import pytest

from recjax.data.batching.eval_batches import make_queries
from tests.data.batching.test_train_batches import sequences

pytestmark = pytest.mark.unit


def test_queries():
    examples = sequences([1, 2, 3, 4, 5], [6, 7, 6], all_positions=False)
    kw = {"batch_size": 3, "history_length": 2}
    (q,) = make_queries(examples, mask_seen=True, **kw)
    assert q.history_BxH.tolist() == [[3, 4], [6, 7], [0, 0]]
    assert q.targets_B.tolist() == [5, 6, 0]
    assert q.examples_B.tolist() == [0, 1, -1]
    # The whole history is seen, but a target bought again stays a candidate.
    assert q.seen_BxS.tolist() == [[1, 2, 3, 4], [7, -1, -1, -1], [-1] * 4]
    (q,) = make_queries(examples, mask_seen=False, **kw)
    assert (q.seen_BxS == -1).all()


def test_likes_of_histories():
    examples = dataclasses.replace(
        sequences([1, 2, 3, 9], [4, 5], all_positions=False),
        ratings=np.array([5.0, 1, np.nan, 4]),
        ratings_R=np.array([5.0, 5.0]),
    )
    kw = {"batch_size": 2, "history_length": 2, "mask_seen": True}
    (q,) = make_queries(examples, like=4.0, **kw)
    assert q.history_BxH.tolist() == [[2, 3], [0, 4]]
    assert q.liked_BxH.tolist() == [[0, -1], [0, 1]]  # 0 at padding
    (q,) = make_queries(examples, **kw)
    assert q.liked_BxH is None


def test_repeated_items_are_seen_once():
    examples = sequences([1, 2] * 500 + [3], [1, 3, 3], all_positions=False)
    kw = {"batch_size": 2, "history_length": 2, "mask_seen": True}
    (q,) = make_queries(examples, **kw)
    assert q.seen_BxS.shape[1] < 5
    assert sorted(q.seen_BxS[0])[-2:] == [1, 2]
    assert examples.repeats_R.tolist() == [False, True]


def test_queries_by_length():
    rng = np.random.default_rng(0)
    lengths = rng.permutation(50) // 2 + 2
    examples = sequences(
        *(rng.integers(0, 99, n) for n in lengths), all_positions=False
    )
    kw = {"history_length": 30, "mask_seen": True}
    (whole,) = make_queries(examples, batch_size=50, **kw)
    parts = list(make_queries(examples, batch_size=8, by_length=True, **kw))
    assert sorted({q.history_BxH.shape[1] for q in parts}) == [4, 8, 15, 30]
    order = np.concatenate([q.examples_B for q in parts])
    assert sorted(order) == [-1] * 6 + list(range(50))
    for q in parts:
        for b, example in enumerate(q.examples_B):
            if example < 0:
                assert not q.mask_BxH[b].any()
                continue
            width = int(whole.mask_BxH[example].sum())
            assert q.mask_BxH[b].sum() == width
            newest = q.history_BxH[b, -width:].tolist()
            assert newest == whole.history_BxH[example, -width:].tolist()
            assert set(q.seen_BxS[b]) - {-1} == set(whole.seen_BxS[example]) - {-1}
            assert q.targets_B[b] == whole.targets_B[example]
