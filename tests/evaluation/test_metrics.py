"""Metrics against ir-measures and against cases worked by hand."""

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from recjax.evaluation import metrics

pytestmark = pytest.mark.unit


def test_against_ir_measures():
    rng = np.random.default_rng(0)
    scores_RxN = rng.normal(size=(50, 30))
    targets_R = rng.integers(0, 30, 50)
    own = scores_RxN[np.arange(50), targets_R][:, None]
    above = (scores_RxN > own).sum(1)
    values = metrics.ranking_values(above, np.zeros(50), 29 - above, (1, 5, 10))

    qrels = [ir_measures.Qrel(str(r), str(t), 1) for r, t in enumerate(targets_R)]
    run = [
        ir_measures.ScoredDoc(str(r), str(i), s)
        for r, row in enumerate(scores_RxN)
        for i, s in enumerate(row)
    ]
    names = {}
    for k in (1, 5, 10):
        names |= {R @ k: f"hr@{k}", nDCG @ k: f"ndcg@{k}", RR @ k: f"mrr@{k}"}
    for m in ir_measures.iter_calc(list(names), qrels, run):
        got = values[names[m.measure]][int(m.query_id)]
        assert abs(got - m.value) < 1e-9, (m.measure, m.query_id)


def test_by_hand_with_ties_against_the_model():
    # Ranks 1, 3 (one above, one equal), 4; five candidates each.
    values = metrics.ranking_values(
        np.array([0, 1, 3]), np.array([0, 1, 0]), np.array([4, 2, 1]), (1, 3)
    )
    np.testing.assert_allclose(values["hr@1"], [1, 0, 0])
    np.testing.assert_allclose(values["hr@3"], [1, 1, 0])
    np.testing.assert_allclose(values["ndcg@3"], [1, 0.5, 0])
    np.testing.assert_allclose(values["mrr@3"], [1, 1 / 3, 0])
    np.testing.assert_allclose(values["auc"], [1, 2.5 / 4, 1 / 4])


def test_auc_without_other_candidates_is_half():
    none = np.array([0])
    assert metrics.ranking_values(none, none, none, (1,))["auc"] == [0.5]


def test_like_auc_of_examples_by_hand():
    """Two liked targets and three others, of which one ties with a liked one."""
    score = np.array([3.0, 1.0, 1.0, 0.0, 2.0])
    liked = np.array([True, True, False, False, False])
    values = metrics.like_auc_values(score, liked)
    np.testing.assert_allclose(values, [1, 1.5 / 3, 1.5 / 2, 1, 0.5])
    auc = metrics.rating_report(score, liked.astype(float), (1.0, 0.0), 0.5)["auc"]
    for part in (liked, ~liked, liked | ~liked):
        assert values[part].mean() == pytest.approx(auc)
    assert metrics.like_auc_values(score, liked | True).tolist() == [0.5] * 5


def test_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        sample = {"x": (rng.random(150) < 0.3).astype(float)}
        i = metrics.with_intervals(
            sample, np.arange(150), bootstrap_samples=300, seed=seed
        )
        i = i["x"]
        hits += i["low"] <= 0.3 <= i["high"]
    assert 0.90 <= hits / 200 <= 0.99


def test_rows_of_one_user_are_drawn_together():
    """Ten equal examples per user are as uncertain as one."""
    one = (np.random.default_rng(0).random(100) < 0.3).astype(float)
    alike = metrics.with_intervals(
        {"x": np.repeat(one, 10)}, np.repeat(np.arange(100), 10), bootstrap_samples=500
    )["x"]
    single = metrics.with_intervals({"x": one}, np.arange(100), bootstrap_samples=500)[
        "x"
    ]
    assert alike == pytest.approx(single)


def test_platt_recovers_the_truth():
    rng = np.random.default_rng(2)
    score = rng.normal(3, 5, 20000)
    truth = 1 / (1 + np.exp(-(0.4 * score - 1)))
    slope, offset = metrics.fit_platt(score, (rng.random(20000) < truth).astype(float))
    assert abs(slope - 0.4) < 0.03
    assert abs(offset + 1) < 0.1


def test_rating_report_by_hand():
    score = np.array([2.0, 1.0, -1.0, -2.0])
    label = np.array([1.0, 0.0, 1.0, 0.0])
    r = metrics.rating_report(score, label, (1.0, 0.0), 0.25)
    counts = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert [r[c] for c in counts] == [1, 1, 1, 1]
    assert r["accuracy"] == 0.5
    p = 1 / (1 + np.exp(-score))
    expected = -np.log([p[0], 1 - p[1], p[2], 1 - p[3]]).mean()
    np.testing.assert_allclose(r["log_loss"], expected)
    np.testing.assert_allclose(r["log_loss_prior"], -(np.log(0.25) + np.log(0.75)) / 2)
    np.testing.assert_allclose(r["auc"], 0.75)
