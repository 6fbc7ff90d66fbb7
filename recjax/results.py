"""What is reported of an evaluation: intervals, groups of rows, what lists are like."""

from typing import Any

import numpy as np

from recjax import summaries, trees
from recjax.beyond import beyond_accuracy
from recjax.buckets import bucket_report, count_events, make_buckets
from recjax.data.rows import Rows
from recjax.evaluate import Evaluation, rating_results
from recjax.fit import Outcome
from recjax.metrics import Interval, with_intervals
from recjax.models.recommender import MEMORY
from recjax.run import Run


def phase_results(r: Run, outcome: Outcome) -> dict[str, Any]:
    """What is reported of a phase."""
    config, data = r.config, r.data
    return {
        "test": intervals(r, outcome.test, data.test),
        "valid": intervals(r, outcome.valid, data.valid),
        "buckets": buckets(r, outcome.test),
        "beyond": beyond(r, outcome.test),
        "rating": rating_results(config, data, outcome.valid, outcome.test),
        "epochs": outcome.epochs,
        "trainable": trees.count(outcome.trained),
        **memory(r, outcome),
        "examples": summaries.examples(
            data,
            r.titles,
            outcome.test.top_RxK,
            count=config.report.examples,
            like=config.eval.like_threshold,
        ),
    }


def memory(r: Run, outcome: Outcome) -> dict[str, dict[str, float]]:
    """The weights that validation chose for the memory, where there is one."""
    weights = outcome.trained.get(MEMORY)
    if weights is None:
        return {}
    named = zip(r.config.head.memory, np.asarray(weights), strict=True)
    return {"memory": {name: round(float(weight), 6) for name, weight in named}}


def untrained_results(r: Run, evaluation: Evaluation) -> dict[str, Any]:
    """What is reported, of the test, of what no phase has trained."""
    metrics = intervals(r, evaluation, r.data.test)
    return {**metrics, "beyond": beyond(r, evaluation)}


def intervals(r: Run, evaluation: Evaluation, rows: Rows) -> dict[str, Interval]:
    """Means over the rows with bootstrap intervals over their users."""
    resamples = r.config.eval.resamples
    return with_intervals(evaluation.values, rows.users_R, resamples=resamples)


def buckets(r: Run, test: Evaluation) -> dict[str, Any]:
    """HR and NDCG of groups of the test rows."""
    k, rows = cut_off(r.config), r.data.test
    metrics, resamples = (f"hr@{k}", f"ndcg@{k}"), r.config.eval.resamples
    groups = make_buckets(r.data, rows)
    return bucket_report(test.values, groups, rows.users_R, metrics, resamples)


def beyond(r: Run, test: Evaluation) -> dict[str, float]:
    """What the test rows' lists are like; distances by the scorer's own vectors."""
    vectors = test.vectors_NxD
    vectors_NxD = None if vectors is None else np.asarray(vectors)
    k, events_N = cut_off(r.config), count_events(r.data)
    return beyond_accuracy(test.top_RxK, events_N, k, vectors_NxD)


def cut_off(config: Any) -> int:
    """The one k of buckets and lists: 10, or the largest there is."""
    ks = config.eval.ks
    return 10 if 10 in ks else max(ks)
