"""What stands beside a trained model, in its tables or in its scores."""

import functools
from typing import Any

import numpy as np

from recjax.baselines import BASELINES, TEXT, Baseline
from recjax.baselines.score_fusion import ScoreFusion
from recjax.baselines.text import TextSimilarity
from recjax.catalogue.whitening import whiten
from recjax.common.param_paths import FlatParams
from recjax.evaluation.results import reference_results
from recjax.training.context import Run

WHITENING_POWER = 0.5  # half-way: cosines of pretrained vectors are all large before


class References:
    """The baselines, and the encoder without a gradient step.

    Args:
      r: the run.
      params: all parameters before any training.
    """

    def __init__(self, r: Run, params: FlatParams):
        self.r, self.params = r, params
        self._memory: dict[str, Baseline] = {}

    def fit_score_fusion(self) -> None:
        """Fits the baselines of `head.fusion` and adds them to the evaluator."""
        start, head = self.r.timer.start(), self.r.config.head
        self._memory = {name: self._fitted(name) for name in head.fusion}
        if self._memory:
            named = list(self._memory.items())
            self.r.evaluator.set_score_fusion(ScoreFusion(named, head.fusion_floor))
        self.r.timer.add_since("baselines", start)

    def baselines(self) -> dict[str, dict[str, Any]]:
        """Fits and tests every baseline that the config names."""
        r, results = self.r, {}
        start = r.timer.start()
        for name in r.config.eval.baselines:
            baseline = self._memory.get(name) or self._fitted(name)
            evaluation = r.evaluator.by_baseline(baseline, r.data.test)
            r.reporter.ranks(name, evaluation.rank_R)
            results[name] = reference_results(r.config, r.data, evaluation)
        r.timer.add_since("baselines", start)
        return results

    def zero_shot(self) -> dict[str, Any]:
        """Tests the pretrained encoder without a gradient step."""
        r = self.r
        start = r.timer.start()
        vectors_NxE = r.replicate(self.texts_NxE)
        evaluation = r.evaluator.by_text(vectors_NxE, r.data.test)
        r.reporter.ranks("zero_shot", evaluation.rank_R)
        r.timer.add_since("zero_shot", start)
        return reference_results(r.config, r.data, evaluation)

    def _fitted(self, name: str) -> Baseline:
        if name == TEXT:
            return TextSimilarity(whiten(self.texts_NxE, WHITENING_POWER))
        baseline = BASELINES[name](self.r.config.seed)
        baseline.fit(self.r.data.train, self.r.data.num_items)
        return baseline

    @functools.cached_property
    def texts_NxE(self) -> np.ndarray:
        """The items' texts by the encoder as it came.

        A pooling that has to be learned is replaced by the mean.
        """
        r, pooling = self.r, self.r.config.item_tower.pooling
        pooling = "mean" if pooling == "attention" else pooling
        model = r.model.with_pooling(pooling)
        assert model.encoder_config is not None
        blocks = model.encoder_config.num_blocks
        encoder = r.catalogue.prefix_encoder
        assert encoder is not None
        return np.asarray(encoder.encode(model, self.params, blocks))
