"""Groups of examples by hand, their means against ir-measures."""

import dataclasses

import ir_measures
import numpy as np
import polars as pl
import pytest
from ir_measures import R, nDCG

from recjax.data.dataset import Examples
from recjax.data.splits import load_data
from recjax.evaluation import metrics, subgroups

pytestmark = pytest.mark.unit


def make_rows(lengths, targets, users=None, all_positions=False):
    """Examples whose histories contain only item 0."""
    ends = np.cumsum(lengths)
    return Examples(
        np.arange(len(targets)) if users is None else np.asarray(users),
        np.zeros(sum(lengths), np.int32),
        ends - lengths,
        ends,
        np.asarray(targets, np.int32),
        np.full(len(targets), np.nan),
        all_positions,
    )


@pytest.fixture
def data(config):
    """Five items with 6, 5, 4, 1 and 0 training events; six users with an age."""
    targets = np.repeat([0, 1, 2, 3], [6, 5, 4, 1])
    return dataclasses.replace(
        load_data(config),
        item_ids=np.array(list("abcde")),
        users=pl.DataFrame({"user": list("uvwxyz"), "sex": [*list("MFMFM"), ""]}),
        train=make_rows([1] * len(targets), targets),
    )


def members(groups):
    return {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()}


def test_items_and_popularity_by_hand(data):
    found = subgroups.make_subgroups(
        data, make_rows([1] * 6, [4, 3, 2, 1, 0, 0], range(6))
    )
    assert members(found["item"]) == {"new": [0], "cold": [1, 2], "warm": [3, 4, 5]}
    # Of 16 events the first third ends after 5.3: inside item 0's six. The second ends
    # after 10.7, inside of item 1's; item 2 and 3 come after.
    assert members(found["popularity"]) == {
        "head": [4, 5],
        "torso": [3],
        "tail": [0, 1, 2],
    }


def test_whole_sequences_count_with_their_histories(data):
    """Every event of a training sequence counts, not only the target."""
    data = dataclasses.replace(data, train=make_rows([4], [1], all_positions=True))
    found = subgroups.make_subgroups(data, make_rows([1] * 3, [0, 1, 2]))
    assert members(found["item"]) == {"new": [2], "cold": [0, 1], "warm": []}


@pytest.mark.parametrize("total", [0, 1, 3, 1000])
def test_popularity_groups_are_thirds_of_the_events(total):
    events_N = np.bincount(np.random.default_rng(0).zipf(1.3, total) % 50, minlength=60)
    group_N = subgroups.popularity_groups(events_N)
    assert (group_N[events_N == 0] == 2).all()
    order_N = np.lexsort((np.arange(60), -events_N))
    assert (np.diff(group_N[order_N]) >= 0).all()
    before = 0
    for item in order_N:
        if events_N[item]:
            third = 0 if before < total / 3 else 1 if before < 2 * total / 3 else 2
            assert group_N[item] == third
        before += events_N[item]


def test_histories_by_hand(data):
    lengths = [0, 1, 5, 6, 20, 21, 50, 51]
    rows = make_rows(lengths, [0] * 8, [0] * 8)
    assert rows.lengths().tolist() == lengths
    assert members(subgroups.make_subgroups(data, rows)["history"]) == {
        "0": [0],
        "1-5": [1, 2],
        "6-20": [3, 4],
        "21-50": [5, 6],
        "51+": [7],
    }


def test_every_row_is_in_one_group(config):
    config.unlock().data.user_table = True
    data = load_data(config)
    users = data.users.with_columns(sex=pl.Series(["M", "F"] * 20))
    data = dataclasses.replace(data, users=users)
    found = subgroups.make_subgroups(data, data.test)
    assert found.keys() == {"item", "history", "popularity", "user/sex"}
    for name, groups in found.items():
        assert (np.sum(list(groups.values()), axis=0) == 1).all(), name


def test_rows_are_grouped_by_their_user(data):
    found = subgroups.make_subgroups(data, make_rows([1] * 4, [0] * 4, [5, 1, 0, 1]))
    assert [name for name in found if name.startswith("user/")] == ["user/sex"]
    assert members(found["user/sex"]) == {"F": [1, 3], "M": [2], "unknown": [0]}


def test_columns_of_users():
    n = 40
    users = pl.DataFrame(
        {
            "user": [f"u{u}" for u in range(n)],
            "alike": ["x"] * n,
            "level": [str(u % 12) for u in range(n)],
            "town": [f"t{u % 13}" for u in range(n)],  # many values, no numbers
            "zip": [f"{u % 20:05}" for u in range(n)],  # leading zeros
            "number": [str(1000 + u) for u in range(n)],  # all different
            "weight": [f"{50 + u}.5" for u in range(n)],
            "age": ["" if u == 39 else str(18 + u % 20) for u in range(n)],
        }
    )
    found = subgroups.user_groups(users)
    assert found.keys() == {"level", "weight", "age"}
    assert list(found["level"]) == [str(i) for i in range(12)]  # 2 before 10
    assert members(found["weight"]) == {
        "50.5-59.5": list(range(10)),
        "60.5-69.5": list(range(10, 20)),
        "70.5-79.5": list(range(20, 30)),
        "80.5-89.5": list(range(30, 40)),
    }
    assert list(found["age"]) == ["18-22", "23-27", "28-32", "33-37", "unknown"]
    assert members(found["age"])["unknown"] == [39]
    assert members(found["age"])["18-22"] == [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]


def test_equal_numbers_stay_together():
    ages = ["30"] * 30 + [str(40 + u) for u in range(15)]
    users = pl.DataFrame({"user": [f"u{u}" for u in range(45)], "age": ages})
    assert members(subgroups.user_groups(users)["age"]) == {
        "30": list(range(30)),
        "40-43": [30, 31, 32, 33],
        "44-54": list(range(34, 45)),
    }


def test_means_against_ir_measures():
    rng = np.random.default_rng(0)
    scores_RxN = rng.normal(size=(60, 30))
    targets_R = rng.integers(0, 30, 60)
    own = scores_RxN[np.arange(60), targets_R][:, None]
    above = (scores_RxN > own).sum(1)
    values = metrics.ranking_values(above, np.zeros(60), 29 - above, (10,))
    groups = rng.integers(0, 3, 60)
    masks = {"user/x": {name: groups == g for g, name in enumerate("abcd")}}
    names = {R @ 10: "hr@10", nDCG @ 10: "ndcg@10"}
    report = subgroups.subgroup_report(
        values,
        masks,
        np.arange(60),
        metrics=list(names.values()),
        bootstrap_samples=50,
        min_rows=1,
    )
    found = report["user/x"]["groups"]
    assert list(found) == ["a", "b", "c"]  # nobody is in d
    for g, name in enumerate("abc"):
        rows = np.flatnonzero(groups == g)
        qrels = [ir_measures.Qrel(str(r), str(targets_R[r]), 1) for r in rows]
        run = [
            ir_measures.ScoredDoc(str(r), str(i), s)
            for r in rows
            for i, s in enumerate(scores_RxN[r])
        ]
        want = ir_measures.calc_aggregate(list(names), qrels, run)
        assert found[name]["rows"] == len(rows)
        for measure, metric in names.items():
            x = found[name][metric]
            assert x["value"] == pytest.approx(want[measure], abs=1e-9)
            assert x["low"] <= x["value"] <= x["high"]


def test_gap_by_hand():
    """Means 0.75, 0.25 and 0.5; a group with a better one is too small."""
    values = {"hr@10": np.array([1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1.0])}
    group = np.array(list("aaaabbbbccccd"))
    masks = {name: group == name for name in "abcd"}

    def report(name, min_rows):
        found = {name: masks}
        users = np.arange(13)
        return subgroups.subgroup_report(
            values,
            found,
            users,
            metrics=["hr@10"],
            bootstrap_samples=10,
            min_rows=min_rows,
        )[name]

    gap = report("user/x", 4)["largest_gap"]["hr@10"]
    assert (gap["value"], gap["best"], gap["worst"]) == (0.5, "a", "b")
    assert report("user/x", 1)["largest_gap"]["hr@10"]["best"] == "d"
    assert "largest_gap" not in report("user/x", 5)
    assert "largest_gap" not in report("item", 1)
    values["hr@10"][:] = 1.0  # no group is the best
    assert report("user/x", 4)["largest_gap"] == {}


def test_the_interval_of_a_gap_is_that_of_two_means():
    rng = np.random.default_rng(0)
    group = np.repeat(["a", "b"], [400, 900])
    hits = (rng.random(1300) < np.where(group == "a", 0.6, 0.3)).astype(float)
    masks = {"user/x": {name: group == name for name in "ab"}}
    users = np.arange(1300)
    report = subgroups.subgroup_report(
        {"x": hits}, masks, users, metrics=["x"], bootstrap_samples=2000
    )
    gap = report["user/x"]["largest_gap"]["x"]
    variances = [hits[group == name].var() / (group == name).sum() for name in "ab"]
    wide = 2 * 1.96 * np.sqrt(sum(variances))
    assert gap["high"] - gap["low"] == pytest.approx(wide, rel=0.06)
    assert gap["low"] < gap["value"] < gap["high"]


def test_users_of_a_group_are_resampled_with_all_their_rows():
    hits = (np.random.default_rng(0).random(40) < 0.3).astype(float)
    values, users = {"x": np.repeat(hits, 10)}, np.repeat(np.arange(40), 10)
    masks = {"item": {"warm": np.ones(400, bool)}}
    report = subgroups.subgroup_report(
        values, masks, users, metrics=["x"], bootstrap_samples=200
    )
    want = metrics.with_intervals({"x": hits}, np.arange(40), bootstrap_samples=200)[
        "x"
    ]
    assert report["item"]["groups"]["warm"]["x"] == pytest.approx(want)
