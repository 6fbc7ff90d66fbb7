"""Splits, filters and held-out items against plain loops over the same events."""

import collections

import numpy as np
import pytest

from recjax.common.errors import UserError
from recjax.data import splits
from recjax.data.batching.eval_batches import make_queries, sample_candidates
from recjax.data.splits import load_data
from tests.data.test_filters import open_config, write

pytestmark = pytest.mark.unit

NUM_ITEMS = 12
INTER = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
ITEM = ["item_id:token\ttitle:token_seq", *(f"i{i:02}\tx" for i in range(NUM_ITEMS))]


def make_events(seed, num_users=30, size=260):
    """(user, item, rating, time), in the order of the file; some times are equal."""
    rng = np.random.default_rng(seed)
    events = {
        (f"u{rng.integers(num_users):02}", f"i{i:02}", int(t))
        for i, t in zip(
            rng.zipf(1.6, size) % NUM_ITEMS, rng.integers(0, 90, size), strict=True
        )
    }
    return [(u, i, int(rng.integers(1, 6)), t) for u, i, t in sorted(events)]


def load(config, folder, events, **changes):
    lines = [f"{u}\t{i}\t{r}\t{t}" for u, i, r, t in events]
    write(folder, INTER + lines, ITEM)
    return load_data(open_config(config, folder, rating="rating", **changes))


def histories(events):
    """Each user's (item, rating, time), oldest first."""
    out = collections.defaultdict(list)
    for u, i, r, t in sorted(events, key=lambda e: e[3]):  # stable
        out[u].append((i, r, t))
    return dict(sorted(out.items()))


def tasks_of(data, examples):
    """(user, history, target, rating) of every example."""
    return [
        (
            str(data.user_ids[examples.users_R[r]]),
            data.item_ids[examples.history(r)].tolist(),
            str(data.item_ids[examples.targets_R[r]]),
            float(examples.ratings_R[r]),
        )
        for r in range(len(examples))
    ]


def every_target(user, events, first, until):
    """An example for each of the events `first` to `until` of a user."""
    return [
        (user, [e[0] for e in events[:n]], events[n][0], float(events[n][1]))
        for n in range(max(first, 1), until)
    ]


def sequence(user, events, until):
    """The training example of a user: its first `until` events."""
    if not until:
        return []
    items = [e[0] for e in events[:until]]
    return [(user, items[:-1], items[-1], float(events[until - 1][1]))]


@pytest.mark.parametrize("seed", range(3))
def test_ratio(config, tmp_path, seed):
    events = make_events(seed)
    data = load(
        config, tmp_path / "x", events, split="ratio", split_fractions=(0.2, 0.3)
    )
    train, valid, test = [], [], []
    for user, own in histories(events).items():
        n = len(own)
        tested = max(int(np.rint(n * 0.3)), 1) if n >= 3 else 0
        checked = max(int(np.rint(n * 0.2)), 1) if n >= 3 else 0
        train += sequence(user, own, n - tested - checked)
        valid += every_target(user, own, n - tested - checked, n - tested)
        test += every_target(user, own, n - tested, n)
    assert tasks_of(data, data.train) == train
    assert tasks_of(data, data.valid) == valid
    assert tasks_of(data, data.test) == test
    assert data.train.all_positions


def test_ratio_takes_no_event_of_another_user(config, tmp_path):
    """Fractions that round up to four of the three events of short histories."""
    events = [(f"u{u}", f"i{i:02}", 3, i) for u in range(2) for i in range(3)]
    events += [("v", f"i{i % NUM_ITEMS:02}", 3, i) for i in range(40)]
    data = load(
        config, tmp_path / "x", events, split="ratio", split_fractions=(0.05, 0.9)
    )
    # The first event of each short history is the only target without a history.
    assert data.left_out == {splits.NO_HISTORY: 2}


@pytest.mark.parametrize("seed", range(3))
def test_time(config, tmp_path, seed):
    events = make_events(seed)
    data = load(
        config, tmp_path / "x", events, split="time", split_fractions=(0.2, 0.3)
    )
    times = sorted(t for *_, t in events)
    first, second = (times[round(p * len(times))] for p in (0.5, 0.7))
    train, valid, test = [], [], []
    for user, own in histories(events).items():
        a, b = (sum(t < cut for *_, t in own) for cut in (first, second))
        train += sequence(user, own, a)
        valid += every_target(user, own, a, b)
        test += every_target(user, own, b, len(own))
    assert tasks_of(data, data.train) == train
    assert tasks_of(data, data.valid) == valid
    assert tasks_of(data, data.test) == test
    newest = max(data.train.target_times_R)
    assert newest < first <= min(data.valid.target_times_R)
    lost = sum(own[0][2] >= first for own in histories(events).values())
    assert data.left_out.get("targets without a history", 0) == lost


@pytest.mark.parametrize("seed", range(3))
def test_split_by_user(config, tmp_path, seed):
    events = make_events(seed)
    options = {"split": "user", "split_fractions": (0.2, 0.3), "split_seed": seed}
    data = load(config, tmp_path / "x", events, **options)
    own = {u: e for u, e in histories(events).items() if len(e) >= 2}
    groups = [set(examples.users_R) for examples in (data.train, data.valid, data.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(own)
    assert [len(g) for g in groups[1:]] == [round(s * len(own)) for s in (0.2, 0.3)]
    for examples in (data.train, data.valid, data.test):
        want = [
            sequence(u, own[u], len(own[u]))[0] for u, *_ in tasks_of(data, examples)
        ]
        assert tasks_of(data, examples) == want
    other = load(config, tmp_path / "x", events, **{**options, "split_seed": 99})
    assert set(other.test.users_R) != groups[2]
    assert other.fingerprint != data.fingerprint


@pytest.mark.parametrize("seed", range(3))
def test_without_a_split_all_events_are_trained_on(config, tmp_path, seed):
    events = make_events(seed)
    data = load(config, tmp_path / "x", events, split="none")
    assert data.train.all_positions
    assert sorted(data.item_ids[data.train.events()]) == sorted(e[1] for e in events)
    own = {u: e for u, e in histories(events).items() if len(e) >= 2}
    want = [every_target(u, e, len(e) - 1, len(e))[0] for u, e in own.items()]
    assert tasks_of(data, data.test) == tasks_of(data, data.valid) == want


@pytest.mark.parametrize("least", [2, 4, 6])
def test_k_core_and_ratings(config, tmp_path, least):
    events = make_events(1)
    data = load(config, tmp_path / "x", events, min_rating=3.0, k_core=least)
    left = [e for e in events if e[2] >= 3]
    while True:
        users, items = (collections.Counter(e[k] for e in left) for k in (0, 1))
        kept = [e for e in left if users[e[0]] >= least and items[e[1]] >= least]
        if len(kept) == len(left):
            break
        left = kept
    assert data.user_ids.tolist() == sorted({e[0] for e in left})
    assert data.item_ids.tolist() == sorted({e[1] for e in left})
    assert data.left_out == {"events filtered out": len(events) - len(left)}
    test = [every_target(u, e, len(e) - 1, len(e)) for u, e in histories(left).items()]
    assert tasks_of(data, data.test) == [
        examples[0] for examples in test if len(examples[0][1]) >= 2
    ]


def test_filters_that_leave_nothing_are_errors(config, tmp_path):
    with pytest.raises(UserError, match="no event is left"):
        load(config, tmp_path / "x", make_events(0), k_core=10**6)


@pytest.mark.parametrize("split", ["leave_one_out", "ratio", "time"])
def test_cold_items_are_targets_and_never_seen(config, tmp_path, split):
    events, folder = make_events(2), tmp_path / "x"
    warm = load(config, folder, events, split=split)
    data = load(config, folder, events, split=split, cold_items=0.3, split_seed=4)
    cold = set(data.item_ids[data.held_out_N])
    trained = set(warm.item_ids[warm.train.events()])
    assert len(cold) == round(0.3 * len(trained))
    assert cold <= trained
    assert data.fingerprint != warm.fingerprint

    def without(items):
        return [i for i in items if i not in cold]

    for split in ("valid", "test"):  # both ask for new items
        mine, all_of = (tasks_of(d, getattr(d, split)) for d in (data, warm))
        assert mine == [(u, without(h), i, r) for u, h, i, r in all_of if without(h)]
        assert any(i in cold for _, _, i, _ in mine)
    lost = len(warm.train) - len(data.train)
    before = warm.left_out.get(splits.HELD_OUT, 0)
    assert data.left_out.get(splits.HELD_OUT, 0) == lost
    assert before == 0
    sequences = [without([*h, i]) for _, h, i, _ in tasks_of(warm, warm.train)]
    assert [[*h, i] for _, h, i, _ in tasks_of(data, data.train)] == [
        s for s in sequences if s
    ]
    had = {(u, i): set(h) for u, h, i, _ in tasks_of(warm, warm.test)}
    for r, (u, _, i, _) in enumerate(tasks_of(data, data.test)):
        assert set(data.item_ids[data.test.seen(r)]) == had[u, i] - {i}
        alone = data.test.take(np.array([r]))
        assert alone.seen(0).tolist() == data.test.seen(r).tolist()
    for r in range(len(data.train)):
        assert len(data.train.sequence_times(r)) == len(data.train.sequence(r))
        assert np.isfinite(data.train.sequence_ratings(r)).all()


def test_seen_cold_items_are_not_candidates(config, tmp_path):
    data = load(config, tmp_path / "x", make_events(2), cold_items=0.3)
    for by_length in (False, True):
        options = {"history_length": 6, "mask_seen": True, "by_length": by_length}
        masked = 0
        for q in make_queries(data.test, batch_size=4, **options):
            for b, row in enumerate(q.examples_B):
                if row >= 0:
                    seen = set(q.seen_BxS[b]) - {-1}
                    assert seen == set(data.test.seen(row))
                    masked += sum(data.held_out_N[i] for i in seen)
        assert masked


def test_the_key_is_in_the_protocol_where_users_are_sampled(config, tmp_path):
    marks = {}
    for key in ("", "0123456789abcdef", "fedcba9876543210"):
        path = tmp_path / "key"
        path.write_text(key)
        for split in ("user", "ratio"):
            data = load(
                config,
                tmp_path / "x",
                make_events(0),
                split=split,
                split_fractions=(0.2, 0.3),
                user_key=str(path) if key else "",
            )
            marks.setdefault(split, set()).add(data.fingerprint)
    assert {split: len(found) for split, found in marks.items()} == {
        "user": 3,
        "ratio": 1,
    }


@pytest.mark.parametrize("mask_seen", [True, False])
def test_sampled_candidates(config, tmp_path, mask_seen):
    data = load(config, tmp_path / "x", make_events(0))
    options = {"mask_seen": mask_seen, "seed": 3}
    sampled_RxC = sample_candidates(data.test, data.num_items, 5, **options)
    for row, sampled in enumerate(sampled_RxC):
        out = {int(data.test.targets_R[row])}
        if mask_seen:
            out |= set(data.test.history(row).tolist())
        left = min(data.num_items - len(out), 5)
        found = sampled[sampled >= 0].tolist()
        assert len(set(found)) == len(found) == left
        assert not out & set(found)
    again = sample_candidates(data.test, data.num_items, 5, **options)
    np.testing.assert_array_equal(again, sampled_RxC)
    other = sample_candidates(data.test, data.num_items, 5, mask_seen=mask_seen, seed=4)
    assert (other != sampled_RxC).any()
