"""Reports of an evaluation: intervals, subgroups, beyond-accuracy metrics, ratings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recjax.common.intervals import Interval
from recjax.common.param_paths import FlatParams, count_params
from recjax.data.dataset import Data, Examples, count_events
from recjax.evaluation.beyond_accuracy import beyond_accuracy
from recjax.evaluation.evaluator import Evaluation
from recjax.evaluation.metrics import fit_platt, rating_report, with_intervals
from recjax.evaluation.subgroups import make_subgroups, subgroup_report
from recjax.losses import learns_likes
from recjax.models.heads import BIASED_GROUPS, EVENT_BIAS, FUSION_WEIGHTS, SEEN_BIAS

SHOWN = 3  # items on each side of an example


def phase_results(
    config: Any,
    data: Data,
    titles: Sequence[str],
    valid: Evaluation,
    test: Evaluation,
    trained: FlatParams,
    epochs: int,
    kept_epoch: int,
) -> dict[str, Any]:
    """Returns the entry of one phase in `results.json`.

    `trained` are the parameters that the phase trained, as evaluated, which are those
    after `kept_epoch` of the `epochs` that were trained.
    """
    return {
        "test": metric_intervals(config, test, data.test),
        "valid": metric_intervals(config, valid, data.valid),
        "subgroups": subgroup_results(config, data, test),
        "beyond_accuracy": beyond_accuracy_results(config, data, test),
        "rating": rating_results(config, data, valid, test),
        "epochs": epochs,
        "kept_epoch": kept_epoch,
        "trainable": count_params(trained),
        **tuned_values(config, trained),
        "examples": example_recommendations(config, data, titles, test.top_RxK),
    }


def reference_results(
    config: Any, data: Data, valid: Evaluation, test: Evaluation
) -> dict[str, Any]:
    """Returns the entry of a baseline, or of the zero-shot encoder.

    The validation values are there to choose a partner for the score fusion.
    """
    return {
        **metric_intervals(config, test, data.test),
        "valid": metric_intervals(config, valid, data.valid),
        "subgroups": subgroup_results(config, data, test),
        "beyond_accuracy": beyond_accuracy_results(config, data, test),
    }


def tuned_values(config: Any, params: FlatParams) -> dict[str, dict[str, float]]:
    """Returns what validation chose: weights of score fusion, biases by item group."""
    names = {
        "fusion": (FUSION_WEIGHTS, config.head.fusion),
        "event_bias": (EVENT_BIAS, BIASED_GROUPS["event_bias"]),
        "seen_bias": (SEEN_BIAS, BIASED_GROUPS["seen_bias"]),
    }
    return {
        key: {
            name: round(float(x), 6)
            for name, x in zip(named, np.asarray(params[path]), strict=True)
        }
        for key, (path, named) in names.items()
        if path in params
    }


def metric_intervals(
    config: Any, evaluation: Evaluation, examples: Examples
) -> dict[str, Interval]:
    """Returns metric means over the examples, with bootstrap intervals over users."""
    samples, users_R = config.eval.bootstrap_samples, examples.users_R
    return with_intervals(evaluation.values, users_R, bootstrap_samples=samples)


def subgroup_results(config: Any, data: Data, test: Evaluation) -> dict[str, Any]:
    """Returns HR and NDCG of subgroups of the test examples."""
    k = report_cutoff(config)
    return subgroup_report(
        test.values,
        make_subgroups(data, data.test),
        data.test.users_R,
        metrics=(f"hr@{k}", f"ndcg@{k}"),
        bootstrap_samples=config.eval.bootstrap_samples,
    )


def beyond_accuracy_results(
    config: Any, data: Data, test: Evaluation
) -> dict[str, float]:
    """Returns beyond-accuracy metrics of the test examples' top lists."""
    # Diversity uses the scorer's own item vectors, so it is missing if there are none.
    vectors = test.vectors_NxD
    vectors_NxD = None if vectors is None else np.asarray(vectors)
    k = report_cutoff(config)
    return beyond_accuracy(test.top_RxK, count_events(data), k, vectors_NxD)


def report_cutoff(config: Any) -> int:
    """Returns the k of subgroups and top lists: 10 if evaluated, else the largest k."""
    ks = config.eval.ks
    return 10 if 10 in ks else max(ks)


def rating_results(
    config: Any, data: Data, valid: Evaluation, test: Evaluation
) -> dict[str, float] | None:
    """Reports how well scores separate liked from other test targets.

    A rating of at least `eval.like_threshold` counts as a like.

    Returns:
      See `rating_report`; None if the loss is not that of likes, or if the validation
      or test targets are all liked or all disliked.
    """
    # The scores of a model that predicts the next item say nothing about likes.
    if not learns_likes(config.loss):
        return None
    like = config.eval.like_threshold
    splits = data.valid, data.test
    labels = [(split.ratings_R >= like).astype(np.float64) for split in splits]
    if any(len(np.unique(label_R)) < 2 for label_R in labels):
        return None
    # Scores are calibrated on the validation targets.
    scores = [each.target_score_R.astype(np.float64) for each in (valid, test)]
    platt = fit_platt(scores[0], labels[0])
    return rating_report(scores[1], labels[1], platt, float(labels[0].mean()))


def example_recommendations(
    config: Any, data: Data, titles: Sequence[str], top_RxK: np.ndarray
) -> list[str]:
    """Returns lines `after X, Y: Z` for examples spread evenly over the test split.

    X and Y are the most recent liked items of the history, Z the best candidates.
    Without ratings or `eval.like_threshold`, every interaction counts as a like.
    """
    titles = [f'"{title}"' if "," in title else title for title in titles]
    like = config.eval.like_threshold
    num_examples = min(config.report.examples, len(data.test))
    lines = []
    for example in np.linspace(0, len(data.test) - 1, num_examples).astype(int):
        liked = ", ".join(titles[i] for i in data.test.liked(example, like)[-SHOWN:])
        best = ", ".join(titles[i] for i in top_RxK[example, :SHOWN] if i >= 0)
        lines.append(f"after {liked or 'nothing'}: {best}")
    return lines
