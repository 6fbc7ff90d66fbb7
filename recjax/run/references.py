"""Reference scores for a trained model: baselines and the zero-shot encoder."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from recjax.baselines import BASELINES, TEXT, Baseline
from recjax.baselines.score_fusion import ScoreFusion
from recjax.baselines.text import TextSimilarity
from recjax.catalogue.whitening import whiten
from recjax.common.param_paths import FlatParams
from recjax.evaluation.results import reference_results
from recjax.training.context import Run

WHITENING_POWER = 0.5  # half: without any whitening all cosines are large


class References:
    """The baselines, and the pretrained encoder without a gradient step.

    Args:
      run: the run.
      params: all parameters before any training.

    Attributes:
      fused: the fitted baselines of the score fusion, by name.
    """

    def __init__(self, run: Run, params: FlatParams):
        self.run = run
        self.params = params
        self.fused: dict[str, Baseline] = {}

    def fit_score_fusion(self) -> None:
        """Fits the baselines of `head.fusion`, and adds their scores to the model's."""
        head = self.run.config.head
        self._encode_for(head.fusion)
        start = self.run.timer.start()
        self.fused = {name: self._fit(name) for name in head.fusion}
        if self.fused:
            fusion = ScoreFusion(list(self.fused.items()), head.fusion_floor)
            self.run.evaluator.set_score_fusion(fusion)
        self.run.timer.add_since("baselines", start)

    def baselines(self) -> dict[str, dict[str, Any]]:
        """Fits and tests every baseline of `eval.baselines`."""
        self._encode_for(self.run.config.eval.baselines)
        start, results = self.run.timer.start(), {}
        for name in self.run.config.eval.baselines:
            baseline = self.fused.get(name) or self._fit(name)
            results[name] = self._evaluate(name, baseline)
        self.run.timer.add_since("baselines", start)
        return results

    def zero_shot(self) -> dict[str, Any]:
        """Evaluates the pretrained encoder without a gradient step, as `text` does."""
        self._encode_for([TEXT])
        start = self.run.timer.start()
        baseline = self.fused.get(TEXT) or self._fit(TEXT)
        results = self._evaluate("zero_shot", baseline)
        self.run.timer.add_since("zero_shot", start)
        return results

    @functools.cached_property
    def vectors_NxE(self) -> np.ndarray:
        """Vectors of the item texts by the pretrained encoder."""
        start = self.run.timer.start()
        vectors_NxE = self.run.catalogue.text_vectors(self.run.model, self.params)
        self.run.timer.add_since("prefix", start)
        return vectors_NxE

    def _encode_for(self, names: Sequence[str]) -> None:
        """Encodes the texts if a baseline needs them, to count its time apart."""
        if TEXT in names:
            _ = self.vectors_NxE

    def _fit(self, name: str) -> Baseline:
        vectors_NxE = self.vectors_NxE if name == TEXT else None
        return fit_baseline(self.run, name, vectors_NxE)

    def _evaluate(self, name: str, baseline: Baseline) -> dict[str, Any]:
        """Keeps the test ranks for `ranks.parquet`, and returns the metrics."""
        data = self.run.data
        # The test first: what `random` draws for it does not depend on the validation.
        test, valid = (
            self.run.evaluator.by_baseline(baseline, examples)
            for examples in (data.test, data.valid)
        )
        self.run.reporter.ranks(name, test.rank_R)
        return reference_results(self.run.config, data, valid, test)


def fit_baseline(run: Run, name: str, vectors_NxE: np.ndarray | None) -> Baseline:
    """Fits a baseline on the training examples; `text` needs the items' vectors."""
    if name == TEXT:
        assert vectors_NxE is not None
        return TextSimilarity(whiten(vectors_NxE, WHITENING_POWER))
    baseline = BASELINES[name](run.config.seed)
    baseline.fit(run.data.train, run.data.num_items)
    return baseline
