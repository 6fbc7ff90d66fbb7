"""Scores of baselines are added to those of a trained model."""

import itertools

import numpy as np
import pytest

import recjax
from recjax.baselines import BASELINES
from recjax.baselines.score_fusion import LOG_SCORED, ScoreFusion, auto_fusion
from recjax.checkpointing.checkpoints import read_params
from recjax.common import param_paths
from recjax.common.errors import UserError
from recjax.config import base, refit
from recjax.config.validate import check_config
from recjax.data.batching.eval_batches import make_queries
from recjax.data.splits import load_data
from recjax.evaluation import ranking
from recjax.evaluation.evaluator import Evaluator, without_event_bias
from recjax.models.heads import EVENT_BIAS, FUSION_WEIGHTS, SEEN_BIAS, TUNED
from recjax.run import train
from recjax.run.phases import complete_phase
from recjax.runtime.mesh import replicate


def with_fusion(config, *names, weights=(0.0, 0.5, 100.0), **changes):
    c = config.copy_and_resolve_references().unlock()
    c.item_tower.sources = ("id", "text")
    c.eval.baselines = ("transitions", "popularity")
    c.head.fusion, c.head.fusion_weights = names, weights
    c.train.phases = (base.phase("towers", epochs=2, lr=1e-2, **changes),)
    return c.lock()


@pytest.mark.parametrize("name", ["transitions", "repeat_transitions", "text", "ials"])
def test_a_heavy_weight_ranks_as_its_baseline(config, tmp_path, name):
    """Logarithms of the scores are in the order of the scores."""
    c = with_fusion(config, name, weights=(1e5,)).unlock()
    c.eval.baselines = (name,)
    final = train.run(c.lock(), str(tmp_path))
    found, want = final["test"], final["baselines"][name]
    assert found["ndcg@10"]["value"] == want["ndcg@10"]["value"]
    assert final["phases"]["towers"]["fusion"] == {name: 1e5}


def test_no_weight_is_no_fusion(config, tmp_path):
    c = with_fusion(config, "transitions", "text", weights=(0.0,))
    final = train.run(c, str(tmp_path / "with"))
    plain = train.run(with_fusion(config), str(tmp_path / "without"))
    assert final["test"] == plain["test"]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_validation_chooses_among_all_combinations(config, tmp_path, ema):
    names, values = ("transitions", "text"), (0.0, 0.5, 100.0)

    def run(folder, weights):
        c = with_fusion(config, *names, weights=weights, ema=ema, patience=0)
        return train.run(c, str(tmp_path / folder))

    final = run("chosen", values)
    (phase,) = final["phases"].values()
    chosen = [phase["fusion"][name] for name in names]
    kept = read_params(tmp_path / "chosen")[FUSION_WEIGHTS]
    np.testing.assert_allclose(kept, chosen, rtol=1e-6)
    best = final["valid"]["ndcg@10"]["value"]
    ones = [run(str(w), (w,))["valid"]["ndcg@10"]["value"] for w in values]
    assert best >= max(ones)
    shown = ", ".join(f"{w:g} x {name}" for name, w in phase["fusion"].items())
    assert shown in (tmp_path / "chosen" / "results.md").read_text()


@pytest.mark.parametrize("candidates", [0, 7])
@pytest.mark.parametrize(
    ("mask_seen", "block"), [(True, 50), (False, 50), (True, 2**16)]
)
def test_all_combinations_are_ranked_as_each_alone(
    config, tmp_path, monkeypatch, candidates, mask_seen, block
):
    """`rank_by_weighting` gives the counts of `rank` for every combination."""
    weights, biases, means = (0.0, 0.3, 2.0), (-0.5, 0.0, 4.0), {}
    monkeypatch.setattr(ranking, "BLOCK_SIZE", block)
    plain = Evaluator.tune_scores

    def mean(self, scorer, params, examples, value_of, **changes):
        """Value and counts with other parameters, by the usual ranking."""
        flat = {**params, **{p: np.float32(x) for p, x in changes.items()}}
        nested = param_paths.unflatten_params(
            {p: replicate(x, self.mesh) for p, x in flat.items()}
        )
        (want,) = self.by_model(scorer, nested, examples)
        batch = next(self.queries(examples, by_length=True))
        placed = self._place_with_fusion(batch)
        ranked = scorer.rank(nested, scorer.encode_catalogue(nested), placed)
        plain_params = param_paths.unflatten_params(without_event_bias(params))
        encoded = scorer.encode_catalogue(plain_params)
        tuned = np.concatenate([flat[path] for path in TUNED if path in flat])
        alone = replicate(tuned[None], self.mesh)
        found = scorer.rank_by_weighting(plain_params, encoded, placed, alone)
        np.testing.assert_array_equal(found[0][0], ranked.above_B)
        np.testing.assert_array_equal(found[1][0], ranked.equal_B)
        np.testing.assert_array_equal(found[2][0], ranked.below_B)
        return value_of(want.values)

    def every(self, scorer, params, paths, examples, value_of):
        bias = tuple(np.asarray(params[EVENT_BIAS]))
        for pair in itertools.product(weights, repeat=2):
            changes = {FUSION_WEIGHTS: pair, EVENT_BIAS: bias}
            means[pair] = mean(self, scorer, params, examples, value_of, **changes)
        tuned, values = plain(self, scorer, params, paths, examples, value_of)
        changes = {**tuned, EVENT_BIAS: bias}
        changes |= {SEEN_BIAS: params[SEEN_BIAS]} if SEEN_BIAS in params else {}
        fused = mean(self, scorer, params, examples, value_of, **changes)
        # A number at an end of its grid may be doubled, but then it has to be better.
        best = max(means.values())
        is_inside = tuple(round(float(w), 4) for w in tuned[FUSION_WEIGHTS]) in means
        assert fused == best if is_inside else fused > best
        end = mean(self, scorer, params, examples, value_of, **tuned)
        assert value_of(values) == pytest.approx(end)
        before = tuned | {path: params[path] for path in (SEEN_BIAS,) if path in params}
        by_bias = {
            pair: mean(
                self, scorer, params, examples, value_of, **before | {EVENT_BIAS: pair}
            )
            for pair in itertools.product(biases, repeat=2)
        }
        found.append(by_bias)
        chosen = mean(self, scorer, params, examples, value_of, **before)
        assert end >= chosen
        is_inside = tuple(tuned[EVENT_BIAS]) in by_bias
        best = max(by_bias.values())
        assert chosen == best if is_inside else chosen > best
        return tuned, values

    found = []
    monkeypatch.setattr(Evaluator, "tune_scores", every)
    c = with_fusion(config, "repeat_transitions", "text", weights=weights).unlock()
    c.eval.candidates, c.eval.mask_seen = candidates, mask_seen
    c.head.event_bias, c.data.cold_items = biases, 0.2
    c.head.seen_bias = () if mask_seen else (0.0, -3.0)
    train.run(c.lock(), str(tmp_path))
    assert len(set(means.values())) > 4
    assert len(set(found[-1].values())) > 1


def test_auto_chooses_the_baselines(config, tmp_path):
    """The model keeps those with a weight, and a refit has the same."""
    c = with_fusion(config, "auto", weights=(0.0, 1.0), keep="last").unlock()
    c.report.save_model = True
    c.eval.mask_seen = False
    final = train.run(c.lock(), str(tmp_path / "run"))
    weights = final["phases"]["towers"]["fusion"]
    assert list(weights) == ["repeat_transitions", "item_knn", "ease", "text"]
    used = {name: weight for name, weight in weights.items() if weight}
    assert 0 < len(used) < len(weights)
    model = recjax.load(tmp_path / "run")
    assert list(model.parts.fusion) == [*used] == [*model.parts.config.head.fusion]
    np.testing.assert_allclose(model.parts.params[FUSION_WEIGHTS], [*used.values()])
    refitted = refit.get_config(str(tmp_path / "run"))
    check_config(refitted)
    assert refitted.head.fusion == tuple(used)
    assert refitted.head.fusion_weights == tuple(used.values())


def test_a_model_has_no_baseline_without_weight(config, tmp_path):
    c = with_fusion(config, "text", "ease", weights=(0.0,)).unlock()
    c.report.save_model = True
    train.run(c.lock(), str(tmp_path / "run"))
    model = recjax.load(tmp_path / "run")
    assert model.fusion is None
    assert FUSION_WEIGHTS not in model.parts.params
    model.recommend(histories=[model.items["id"][:2].to_list()], k=2)


def test_what_auto_chooses_from_depends_on_the_data(config):
    c = with_fusion(config, "auto").unlock()
    assert auto_fusion(c, 100) == ("transitions", "item_knn", "ease", "text")
    c.item_tower.sources = ("id",)
    assert auto_fusion(c, 10**6) == ("transitions", "item_knn")


def test_a_resumed_run_fuses_the_untrained_encoder(config, tmp_path, monkeypatch):
    """The text baseline does not use the encoder as the phases before trained it."""
    names = ("text",)
    c = with_fusion(config, *names, weights=(0.0, 1.0), lr_mults=base.freeze("none"))
    c = c.unlock()
    c.train.phases = (*c.train.phases, base.phase("more", epochs=1))
    c = c.lock()
    whole = train.run(c, str(tmp_path / "whole"))
    plain, phases = complete_phase, []

    def killed(r, index, *args):
        phases.append(index)
        if index == 1 and phases.count(1) == 1:
            raise KeyboardInterrupt
        return plain(r, index, *args)

    monkeypatch.setattr(train, "complete_phase", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run(c, str(tmp_path / "cut"))
    resumed = train.run(c, str(tmp_path / "cut"))
    assert phases == [0, 1, 1]
    assert resumed["test"] == whole["test"]
    assert resumed["valid"] == whole["valid"]


def test_weights_that_every_phase_freezes_are_refused(config, tmp_path):
    rules = (("head/.*|users/.*|items/id/.*", 1.0), (".*", None))
    c = with_fusion(config, "transitions", lr_mults=rules)
    with pytest.raises(
        UserError, match="every phase freezes the fusion weights, late_fusion/w"
    ):
        train.run(c, str(tmp_path))


def test_probabilities_enter_as_logarithms_with_a_floor(config):
    c = with_fusion(config)
    data = load_data(c)
    q = next(make_queries(data.test, batch_size=8, history_length=6, mask_seen=True))
    named = []
    for name in ("transitions", "ease"):
        baseline = BASELINES[name](c.seed)
        baseline.fit(data.train, data.num_items)
        named.append((name, baseline))
    scores_BxMxN = ScoreFusion(named, 0.01).score(q)
    scores = named[0][1].score(q)
    assert (scores == 0).any()  # an item without an event
    np.testing.assert_allclose(scores_BxMxN[:, 0], np.log(scores + 0.01), rtol=1e-6)
    np.testing.assert_array_equal(scores_BxMxN[:, 1], named[1][1].score(q))


@pytest.mark.parametrize("name", LOG_SCORED)
def test_scores_with_a_logarithm_are_not_negative(config, name):
    data = load_data(config)
    baseline = BASELINES[name](0)
    baseline.fit(data.train, data.num_items)
    for q in make_queries(data.test, batch_size=8, history_length=6, mask_seen=True):
        assert (baseline.score(q) >= 0).all()
