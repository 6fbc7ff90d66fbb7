"""The evaluation of scorers against plain NumPy."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from recjax.baselines import BASELINES
from recjax.baselines.text import TextSimilarity
from recjax.data.batching.eval_batches import sample_candidates
from recjax.data.dataset import Examples
from recjax.data.splits import load_data
from recjax.evaluation import evaluator as evaluator_lib
from recjax.evaluation import metrics, results
from recjax.evaluation.evaluator import Evaluator
from recjax.evaluation.ranking import rank_queries
from recjax.retrieval.index import make_index
from recjax.runtime import mesh as mesh_lib
from recjax.runtime.compiler import Compiler

pytestmark = pytest.mark.unit


@pytest.fixture
def data(config):
    return load_data(config)


@pytest.fixture
def evaluator(config, data):
    mesh = mesh_lib.make_mesh(config.mesh)
    return Evaluator(config, data, mesh, Compiler(print, mesh))


def by_hand(data, config, scores_of):
    """Metrics of `scores_of(history)`, one example at a time."""
    counts = []
    for row in range(len(data.test)):
        history, target = data.test.history(row), data.test.targets_R[row]
        scores = np.asarray(scores_of(history), np.float64)
        candidates = np.setdiff1d(np.arange(data.num_items), history)
        candidates = np.union1d(candidates, target)
        others = scores[candidates[candidates != target]]
        s = scores[target]
        counts.append([(others > s).sum(), (others == s).sum(), (others < s).sum()])
    return metrics.ranking_values(*np.array(counts).T, config.eval.ks)


def test_popularity(config, data, evaluator):
    baseline = BASELINES["popularity"](0)
    baseline.fit(data.train, data.num_items)
    counts = np.zeros(data.num_items)
    for row in range(len(data.train)):
        for item in data.train.sequence(row):
            counts[item] += 1
    values = evaluator.by_baseline(baseline, data.test).values
    for name, want in by_hand(data, config, lambda history: counts).items():
        np.testing.assert_allclose(values[name], want, err_msg=name)


def test_random_is_seeded(data, evaluator):
    def auc(seed):
        baseline = BASELINES["random"](seed)
        baseline.fit(data.train, data.num_items)
        return evaluator.by_baseline(baseline, data.test).values["auc"].tolist()

    assert auc(0) == auc(0) != auc(1)
    assert np.mean(auc(0)) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("mask_seen", [True, False])
def test_only_sampled_candidates_are_compared(config, data, mask_seen):
    c = config.unlock()
    c.eval.candidates, c.eval.mask_seen = 6, mask_seen
    mesh = mesh_lib.make_mesh(c.mesh)
    evaluator = Evaluator(c, data, mesh, Compiler(print, mesh))
    vectors = np.random.default_rng(0).normal(size=(data.num_items, 5))
    evaluation = evaluator.by_baseline(TextSimilarity(vectors), data.test)
    sampled_RxC = sample_candidates(
        data.test, data.num_items, 6, mask_seen=mask_seen, seed=c.data.split_seed
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, drawn in enumerate(sampled_RxC):
        history = data.test.history(row)[-c.data.history_length :]
        weight_H = 0.5 ** np.arange(len(history))[::-1]
        scores, target = unit @ (weight_H @ unit[history]), data.test.targets_R[row]
        above = (scores[drawn] > scores[target]).sum()
        assert evaluation.values["hr@5"][row] == (above < 5), row
        assert evaluation.values["hr@1"][row] == (above < 1), row
        assert evaluation.values["hr@10"][row] == 1  # of seven


def test_users_times_items_are_bounded(config, data, evaluator, monkeypatch):
    assert {q.examples_B.shape for q in evaluator.queries(data.test)} == {(16,)}
    monkeypatch.setattr(evaluator_lib, "MAX_SCORES", 5 * data.num_items)
    small = [q.examples_B for q in evaluator.queries(data.test)]
    assert {examples_B.shape for examples_B in small} == {(5,)}
    assert np.concatenate(small).tolist() == list(range(len(data.test)))


def test_rows_come_back_in_order(config, data, evaluator):
    """Batches by length; the user is the sum of the newest H vectors."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(data.num_items, 5)).astype(np.float32)
    lengths = rng.permutation(10) + 1
    test = Examples(
        np.arange(10),
        rng.integers(0, data.num_items, lengths.sum()).astype(np.int32),
        np.cumsum(lengths) - lengths,
        np.cumsum(lengths),
        rng.integers(0, data.num_items, 10).astype(np.int32),
        np.full(10, np.nan),
        False,
    )
    data, widths = dataclasses.replace(data, test=test), []

    class SumScorer:
        def encode_catalogue(self, params):
            vectors_NxD = jnp.asarray(params)
            return vectors_NxD, make_index(vectors_NxD, jnp.zeros(len(params)))

        def rank(self, params, encoded, q):
            _, index = encoded
            widths.append(q.history_BxH.shape[1])
            history = index.candidates_MxD[q.history_BxH]
            users = jnp.where(q.mask_BxH[..., None], history, 0).sum(1)
            return rank_queries(users, index, q, evaluator.k, len(params))

    def scores(history):
        return vectors @ vectors[history[-config.data.history_length :]].sum(0)

    config.unlock().eval.batch_size, config.data.history_length = 3, 8
    (found,) = evaluator.by_model(SumScorer(), vectors, data.test)
    for name, want in by_hand(data, config, scores).items():
        np.testing.assert_allclose(found.values[name], want, err_msg=name)
    assert len(set(widths)) > 1
    np.testing.assert_array_equal(found.vectors_NxD, vectors)
    for row in range(len(data.test)):
        score = scores(data.test.history(row))
        np.testing.assert_allclose(
            found.target_score_R[row], score[data.test.targets_R[row]], rtol=1e-4
        )
        seen = set(data.test.history(row)) - {data.test.targets_R[row]}
        best = [i for i in np.argsort(-score, kind="stable") if i not in seen]
        there = found.top_RxK[row][found.top_RxK[row] >= 0]
        assert there.tolist() == best[: len(there)]
    both = evaluator.by_model(SumScorer(), vectors, data.valid, data.test)
    assert [len(e.top_RxK) for e in both] == [len(data.valid), len(data.test)]


def test_likes_are_calibrated_on_validation(config):
    """Test scores in reverse order do not change the calibration."""
    rng, c = np.random.default_rng(0), config.unlock()
    c.data.rating, c.eval.like_threshold, c.loss.name = "rating", 4.0, "rating"
    rows, scores = {}, {}
    for split, sign, threshold in (("valid", 1, 3), ("test", -1, 2)):
        ratings_R = rng.integers(1, 6, 60).astype(np.float32)
        ratings_R[: threshold * 10] = 1.0  # shares of likes that differ
        rows[split] = SimpleNamespace(ratings_R=ratings_R)
        scores[split] = sign * ratings_R + rng.normal(size=60)
    found = results.rating_results(
        c,
        SimpleNamespace(**rows),
        *(SimpleNamespace(target_score_R=x) for x in scores.values()),
    )
    likes = {k: (x.ratings_R >= 4).astype(float) for k, x in rows.items()}
    assert likes["valid"].mean() != likes["test"].mean()
    platt = metrics.fit_platt(scores["valid"], likes["valid"])
    assert platt[0] > 0
    share = likes["valid"].mean()
    want = metrics.rating_report(scores["test"], likes["test"], platt, share)
    assert found == pytest.approx(want)


def test_a_small_test_split_shows_each_example_once(config, data):
    config.unlock().report.examples = len(data.test) + 3
    top_RxK = np.zeros((len(data.test), 1), int)
    titles = data.item_ids.tolist()
    lines = results.example_recommendations(config, data, titles, top_RxK)
    assert len(lines) == len(data.test)
