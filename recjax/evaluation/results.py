"""What is reported of an evaluation: intervals, groups of rows, what lists are like."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recjax.common.intervals import Interval
from recjax.common.param_paths import count_params
from recjax.data.dataset import Data, Examples, count_events
from recjax.evaluation.beyond_accuracy import beyond_accuracy
from recjax.evaluation.evaluator import Evaluation, rating_results
from recjax.evaluation.metrics import with_intervals
from recjax.evaluation.subgroups import make_subgroups, subgroup_report
from recjax.models.heads import FUSION_WEIGHTS
from recjax.training.context import Run
from recjax.training.loop import PhaseResult


def phase_results(r: Run, outcome: PhaseResult) -> dict[str, Any]:
    """What is reported of a phase."""
    config, data = r.config, r.data
    return {
        "test": metric_intervals(r, outcome.test, data.test),
        "valid": metric_intervals(r, outcome.valid, data.valid),
        "subgroups": subgroup_results(r, outcome.test),
        "beyond_accuracy": beyond_accuracy_results(r, outcome.test),
        "rating": rating_results(config, data, outcome.valid, outcome.test),
        "epochs": outcome.epochs,
        "trainable": count_params(outcome.trained),
        **fusion_weights(r, outcome),
        "examples": example_recommendations(
            data,
            r.titles,
            outcome.test.top_RxK,
            count=config.report.examples,
            like=config.eval.like_threshold,
        ),
    }


def fusion_weights(r: Run, outcome: PhaseResult) -> dict[str, dict[str, float]]:
    """The weights that validation chose for the memory, where there is one."""
    weights = outcome.trained.get(FUSION_WEIGHTS)
    if weights is None:
        return {}
    named = zip(r.config.head.fusion, np.asarray(weights), strict=True)
    return {"fusion": {name: round(float(weight), 6) for name, weight in named}}


def reference_results(r: Run, evaluation: Evaluation) -> dict[str, Any]:
    """What is reported, of the test, of what no phase has trained."""
    metrics = metric_intervals(r, evaluation, r.data.test)
    return {**metrics, "beyond_accuracy": beyond_accuracy_results(r, evaluation)}


def metric_intervals(
    r: Run, evaluation: Evaluation, rows: Examples
) -> dict[str, Interval]:
    """Means over the rows with bootstrap intervals over their users."""
    resamples = r.config.eval.bootstrap_samples
    return with_intervals(evaluation.values, rows.users_R, resamples=resamples)


def subgroup_results(r: Run, test: Evaluation) -> dict[str, Any]:
    """HR and NDCG of groups of the test rows."""
    k, rows = cut_off(r.config), r.data.test
    metrics, resamples = (f"hr@{k}", f"ndcg@{k}"), r.config.eval.bootstrap_samples
    groups = make_subgroups(r.data, rows)
    return subgroup_report(test.values, groups, rows.users_R, metrics, resamples)


def beyond_accuracy_results(r: Run, test: Evaluation) -> dict[str, float]:
    """What the test rows' lists are like; distances by the scorer's own vectors."""
    vectors = test.vectors_NxD
    vectors_NxD = None if vectors is None else np.asarray(vectors)
    k, events_N = cut_off(r.config), count_events(r.data)
    return beyond_accuracy(test.top_RxK, events_N, k, vectors_NxD)


def cut_off(config: Any) -> int:
    """The one k of buckets and lists: 10, or the largest there is."""
    ks = config.eval.ks
    return 10 if 10 in ks else max(ks)


def example_recommendations(
    data: Data,
    titles: Sequence[str],
    top_RxK: np.ndarray,
    *,
    count: int,
    like: float,
    show: int = 3,
) -> list[str]:
    """`liked X, Y -> Z` for users spread over the test rows.

    X, Y are the newest items of the history that were rated at least `like`, Z the
    best candidates. Where ratings are not known, or `like` is 0, choosing an item
    counts as liking it.
    """
    titles = [f'"{title}"' if "," in title else title for title in titles]
    lines = []
    for row in np.linspace(0, len(data.test) - 1, count).astype(int):
        liked = ", ".join(titles[i] for i in data.test.liked(row, like)[-show:])
        best = ", ".join(titles[i] for i in top_RxK[row, :show] if i >= 0)
        lines.append(f"liked {liked or 'nothing'} -> {best}")
    return lines
