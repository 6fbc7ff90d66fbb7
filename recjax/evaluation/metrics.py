"""Ranking and rating metrics: per-example values first, means and intervals after."""

from collections.abc import Sequence

import numpy as np

from recjax.common.intervals import Interval

MetricValues = dict[str, np.ndarray]
LIKE_AUC = "like_auc"  # metric of models that are trained for likes


def rank_metric(rank_R: np.ndarray, metric: str) -> np.ndarray:
    """Returns values_R of `hr@k`, `ndcg@k` or `mrr@k` for ranks that count from 1.

    With one target per example HR@k is recall@k, NDCG@k is 1 / log2(rank + 1) (Jarvelin
    and Kekalainen, 2002) and MRR@k is 1 / rank; all are 0 beyond rank k.
    """
    name, k = metric.split("@")
    hit_R = (rank_R <= int(k)).astype(np.float64)
    if name == "hr":
        return hit_R
    return hit_R / {"ndcg": np.log2(rank_R + 1), "mrr": rank_R}[name]


def ranking_values(
    above_R: np.ndarray, equal_R: np.ndarray, below_R: np.ndarray, ks: Sequence[int]
) -> MetricValues:
    """Returns `{"hr@10": values_R, ..., "auc": values_R}` with the cut-offs `ks`.

    The counts are of the candidates that score above their target, the same, and below.
    """
    # Ties count against the model: the target ranks behind all candidates with the same
    # score. In AUC a tie counts one half, as in the Mann-Whitney statistic.
    rank_R = above_R + equal_R + 1
    values = {
        f"{name}@{k}": rank_metric(rank_R, f"{name}@{k}")
        for k in ks
        for name in ("hr", "ndcg", "mrr")
    }
    others_R = above_R + equal_R + below_R
    # A target without competitors gets chance level, as if it tied with one.
    alone_R = others_R == 0
    better_R = below_R + 0.5 * (equal_R + alone_R)
    values["auc"] = better_R / np.maximum(others_R, 1)
    return values


def like_auc_values(score_R: np.ndarray, liked_R: np.ndarray) -> np.ndarray:
    """Returns the share of examples with the other label that a score separates from.

    For a liked target these are the other ones that score below it, for others the
    liked ones above; equal scores count one half. The mean over the liked targets, that
    over the others and that over all are each the AUC (DeLong et al., 1988). All values
    are one half if all labels are equal.
    """
    value_R = np.full(len(score_R), 0.5)
    if liked_R.all() or not liked_R.any():
        return value_R
    for own_R, sign in ((liked_R, 1), (~liked_R, -1)):
        others = np.sort(sign * score_R[~own_R])
        below, not_above = (
            np.searchsorted(others, sign * score_R[own_R], side)
            for side in ("left", "right")
        )
        value_R[own_R] = (below + not_above) / (2 * len(others))
    return value_R


def with_intervals(
    values: MetricValues,
    users_R: np.ndarray,
    *,
    bootstrap_samples: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns metric means with 95% percentile bootstrap intervals (Efron, 1979).

    All values are of the same examples, and all metrics share the resamples.
    """
    table_RxM = np.stack(list(values.values()), axis=1)
    means_SxM = bootstrap_means(
        table_RxM, users_R, bootstrap_samples=bootstrap_samples, seed=seed
    )
    return {
        name: interval(float(table_RxM[:, m].mean()), means_SxM[:, m])
        for m, name in enumerate(values)
    }


def bootstrap_means(
    table_RxM: np.ndarray, users_R: np.ndarray, *, bootstrap_samples: int, seed: int
) -> np.ndarray:
    """Returns means_SxM of S resamples of the users, each with all their examples."""
    # Examples of one user are not independent, so users are resampled, not examples.
    _, users_R, examples_V = np.unique(users_R, return_inverse=True, return_counts=True)
    # Sums per user are enough for the mean of any resample of users.
    sums_VxM = np.zeros((len(examples_V), table_RxM.shape[1]))
    np.add.at(sums_VxM, users_R, table_RxM)
    size = len(examples_V)
    rng = np.random.default_rng(seed)
    means_SxM = np.empty((bootstrap_samples, table_RxM.shape[1]))
    for i in range(bootstrap_samples):
        times_V = np.bincount(rng.integers(size, size=size), minlength=size)
        means_SxM[i] = times_V @ sums_VxM / (times_V @ examples_V)
    return means_SxM


def interval(value: float, samples_S: np.ndarray) -> Interval:
    """Returns a value with the 95% interval of its bootstrap samples."""
    tail = (1 - 0.95) / 2  # not 0.025: the rounding is a part of published intervals
    low, high = np.quantile(samples_S, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def fit_platt(score_R: np.ndarray, label_R: np.ndarray) -> tuple[float, float]:
    """Fits slope and offset of `sigmoid(slope * score + offset)` (Platt, 1999)."""
    # Smoothed targets keep the fit finite when the labels are separable.
    positives, negatives = label_R.sum(), (1 - label_R).sum()
    smooth_R = np.where(
        label_R == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2)
    )
    # Standardised scores condition the Hessian well, whatever the model's scale.
    mean = score_R.mean()
    std = max(float(score_R.std()), 1e-12)
    x_Rx2 = np.stack([(score_R - mean) / std, np.ones_like(score_R)], axis=1)
    w = np.zeros(2)
    # Newton's method converges in a few of these iterations.
    for _ in range(50):
        p_R = _sigmoid(x_Rx2 @ w)
        gradient = x_Rx2.T @ (p_R - smooth_R)
        hessian = (x_Rx2 * (p_R * (1 - p_R))[:, None]).T @ x_Rx2 + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        w -= step
        if np.abs(step).max() < 1e-10:
            break
    return float(w[0] / std), float(w[1] - w[0] * mean / std)


def rating_report(
    score_R: np.ndarray, label_R: np.ndarray, platt: tuple[float, float], prior: float
) -> dict[str, float]:
    """Returns the confusion matrix at probability one half, accuracy, AUC, log loss.

    `platt` is the result of `fit_platt` on other events, and `prior` the share of likes
    among those; `log_loss_prior` is the log loss of always predicting it.
    """
    p_R = np.clip(_sigmoid(platt[0] * score_R + platt[1]), 1e-7, 1 - 1e-7)
    prior = float(np.clip(prior, 1e-7, 1 - 1e-7))
    predicted = p_R >= 0.5
    likes = label_R == 1
    return {
        "true_positive": int((predicted & likes).sum()),
        "false_positive": int((predicted & ~likes).sum()),
        "false_negative": int((~predicted & likes).sum()),
        "true_negative": int((~predicted & ~likes).sum()),
        "accuracy": float((predicted == likes).mean()),
        "log_loss": float(-np.log(np.where(likes, p_R, 1 - p_R)).mean()),
        "log_loss_prior": float(-np.log(np.where(likes, prior, 1 - prior)).mean()),
        "auc": _auc(score_R, likes),
    }


def _auc(score_R: np.ndarray, positive_R: np.ndarray) -> float:
    """Returns the probability that a positive outscores a negative; ties count 1/2."""
    _, inverse, counts = np.unique(score_R, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    positives = int(positive_R.sum())
    negatives = len(score_R) - positives
    if not positives or not negatives:
        return float("nan")
    total = mean_rank[inverse][positive_R].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))  # clipped: exp would overflow
