"""The zero-shot start: an untrained model ranks as the text similarity does."""

import time

import jax
import numpy as np
import pytest

import recjax
from recjax.baselines.text import TextSimilarity
from recjax.catalogue.whitening import whiten
from recjax.common.errors import UserError
from recjax.config import base
from recjax.config.validate import check_config
from recjax.run.references import References
from recjax.run.setup import open_run, trained_phases
from recjax.run.zero_shot import whitening_projection
from recjax.training.make_phase import make_phase


def zero_shot(config, **keys):
    c = config.copy_and_resolve_references().unlock()
    c.item_tower.sources = ("id", "text")
    c.item_tower.init, c.item_tower.width = "zero_shot", 16  # the encoder's width
    c.user_tower.recency, c.user_tower.width = True, 8
    c.head.name, c.head.temperature = "two_tower", 0.1
    c.eval.baselines = ("text",)
    c.update_from_flattened_dict(keys)
    return c.lock()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"user_tower.name": "mean", "item_tower.sources": ("text",)},
        {"user_tower.name": "gru", "user_tower.repeats": True, "head.bias": True},
        {"item_tower.pooling": "attention"},
        {"item_tower.pooling": "cls", "item_tower.id_dropout": 0.5},
    ],
)
def test_untrained_model_scores_as_text_similarity(config, tmp_path, keys):
    c = zero_shot(config, **keys)
    with open_run(c, tmp_path, time.perf_counter()) as (run, params):
        if c.item_tower.pooling == "attention":
            # With a query of zeros, untrained attention is the mean.
            path = next(p for p in params if "pool/query" in p)
            params[path] = jax.numpy.zeros_like(params[path])
        references = References(run, params)
        text = TextSimilarity(whiten(references.vectors_NxE, 0.5))
        phase, state = make_phase(run, 0, trained_phases(c)[0], params, 0)
        (mine,) = run.evaluator.by_model(
            phase.scorer, phase.nested(state.result), run.data.test
        )
        theirs = run.evaluator.by_baseline(text, run.data.test)
        # The scale of a user's scores differs, and their order does not.
        np.testing.assert_array_equal(mine.rank_R, theirs.rank_R)
        ratio_R = mine.target_score_R / theirs.target_score_R
        scores = np.stack([mine.target_score_R, theirs.target_score_R])
        assert np.corrcoef(scores)[0, 1] > 0.95
        assert (ratio_R > 0.99).all()
        assert len(set(mine.rank_R)) > 5


def test_projection_whitens_and_keeps_the_main_components():
    rng = np.random.default_rng(0)
    x_NxE = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 8)) + 3
    kernel_ExE, bias_E = whitening_projection(x_NxE, 8, 0.5)
    full_NxE = x_NxE @ kernel_ExE + bias_E
    expected_NxE = whiten(x_NxE, 0.5)
    scale = np.sqrt((expected_NxE**2).sum(1).mean())
    np.testing.assert_allclose(full_NxE, expected_NxE / scale, atol=1e-5)
    kernel_Ex3, bias_3 = whitening_projection(x_NxE, 3, 0.5)
    short_Nx3 = x_NxE @ kernel_Ex3 + bias_3
    assert (short_Nx3**2).sum(1).mean() == pytest.approx(1, rel=1e-5)
    # The three components of full_NxE with the largest variance.
    covariance = np.cov(short_Nx3.T) / np.cov(short_Nx3.T)[0, 0]
    variances = np.linalg.eigvalsh(np.cov(full_NxE.T))[::-1]
    expected = np.diag(variances[:3] / variances[0])
    np.testing.assert_allclose(covariance, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"item_tower.sources": ("id",)}, "needs 'text' in item_tower.sources"),
        ({"text.whiten": True}, "zero_shot whitens already; set False"),
        ({"item_tower.mlp_layers": 2}, "item_tower.mlp_layers: 2 .*set 0"),
        ({"item_tower.combine": "gate"}, "item_tower.combine: 'gate'.*set 'sum'"),
        ({"user_tower.name": "bert4rec"}, "user_tower.recency: .*'bert4rec'"),
        ({"user_tower.recency": False}, "user_tower.width: 8 needs user_tower.recency"),
        ({"user_tower.width": 7}, "user_tower.width: 7 is not divisible by"),
    ],
)
def test_refused_combinations(config, keys, message):
    with pytest.raises(UserError, match=message):
        check_config(zero_shot(config, **{"eval.baselines": (), **keys}))


def test_wider_than_the_encoder_is_refused(config, tmp_path):
    c = zero_shot(config, **{"item_tower.width": 17})
    message = "item_tower.width: 17 is more than the encoder's width, 16"
    with pytest.raises(UserError, match=message):
        recjax.train(c, str(tmp_path))


def test_ids_and_the_tower_learn(config, tmp_path):
    """What begins at zero does not stay there."""
    c = zero_shot(config).unlock()
    c.train.phases = (base.phase("towers", epochs=1, lr=1e-2, patience=0, keep="last"),)
    with open_run(c.lock(), tmp_path, time.perf_counter()) as (run, params):
        phase, state = make_phase(run, 0, trained_phases(c)[0], params, 0)
        for path in ("items/id/vectors/embedding", "users/output/kernel"):
            assert not np.asarray(params[path]).any()
        batches = iter(phase.batches)
        for _ in range(2):
            state, _ = phase.run_step(state, {}, next(batches))
        for path, x in state.trainable.items():
            if path.startswith(("items/", "users/")):
                assert np.abs(np.asarray(x) - np.asarray(params[path])).max() > 0, path
