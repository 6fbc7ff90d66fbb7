"""Ranking and rating metrics: per-user values first, means and intervals after."""

from collections.abc import Mapping, Sequence

import numpy as np

from recjax.common.intervals import Interval

MetricValues = dict[str, np.ndarray]


def ranking_values(
    above_R: np.ndarray, equal_R: np.ndarray, below_R: np.ndarray, ks: Sequence[int]
) -> MetricValues:
    """HR, NDCG and MRR at each k, and AUC, for one target a row.

    Equal scores count against the model: the target stands behind all its ties. In
    AUC a tie counts one half, as in the Mann-Whitney statistic.

    Args:
      above_R: candidates that score higher than the target.
      equal_R: other candidates that score the same.
      below_R: candidates that score lower.
      ks: cut-offs.

    Returns:
      `{"hr@10": values_R, ...}`. With a single target HR@k is recall@k, NDCG@k is
      1 / log2(rank + 1) (Jarvelin and Kekalainen, 2002) and MRR@k is 1 / rank, both
      0 beyond rank k.
    """
    rank_R = above_R + equal_R + 1
    values = {}
    for k in ks:
        hit_R = (rank_R <= k).astype(np.float64)
        values[f"hr@{k}"] = hit_R
        values[f"ndcg@{k}"] = hit_R / np.log2(rank_R + 1)
        values[f"mrr@{k}"] = hit_R / rank_R
    # As much as chance where there is nothing else to be above of.
    others_R = above_R + equal_R + below_R
    alone_R = others_R == 0
    better_R = below_R + 0.5 * (equal_R + alone_R)
    values["auc"] = better_R / np.maximum(others_R, 1)
    return values


def with_intervals(
    values: MetricValues,
    users_R: np.ndarray,
    *,
    resamples: int,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Means over the rows with percentile bootstrap intervals (Efron, 1979).

    Users are drawn with all their rows, because rows of one user are alike.

    Args:
      values: per-row values, all of the same rows.
      users_R: whose row it is.
      resamples: number of bootstrap samples; the same for every metric.
      seed: of the resampling.
      level: coverage of the interval.

    Returns:
      `{metric: {"value", "low", "high"}}`.
    """
    names = list(values)
    table_RxM = np.stack([values[name] for name in names], axis=1)
    means_SxM = bootstrap_means(table_RxM, users_R, resamples=resamples, seed=seed)
    return {
        name: interval(float(table_RxM[:, m].mean()), means_SxM[:, m], level)
        for m, name in enumerate(names)
    }


def bootstrap_means(
    table_RxM: np.ndarray, users_R: np.ndarray, *, resamples: int, seed: int = 0
) -> np.ndarray:
    """means_SxM of S samples of the users, each drawn with all rows."""
    _, users_R, rows_V = np.unique(users_R, return_inverse=True, return_counts=True)
    sums_VxM = np.zeros((len(rows_V), table_RxM.shape[1]))
    np.add.at(sums_VxM, users_R, table_RxM)
    size = len(rows_V)
    rng = np.random.default_rng(seed)
    means_SxM = np.empty((resamples, table_RxM.shape[1]))
    for i in range(resamples):
        drawn_V = np.bincount(rng.integers(size, size=size), minlength=size)
        means_SxM[i] = drawn_V @ sums_VxM / (drawn_V @ rows_V)
    return means_SxM


def interval(value: float, samples_S: np.ndarray, level: float = 0.95) -> Interval:
    """A value between the percentiles of its bootstrap samples."""
    tail = (1 - level) / 2
    low, high = np.quantile(samples_S, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def fit_platt(score_R: np.ndarray, label_R: np.ndarray) -> tuple[float, float]:
    """Slope and offset of `sigmoid(slope * score + offset)`, by Newton's method.

    Platt (1999): turns ranking scores into probabilities on held-out labels, with his
    smoothed targets.
    """
    positives, negatives = label_R.sum(), (1 - label_R).sum()
    smooth_R = np.where(
        label_R == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2)
    )
    mean, std = score_R.mean(), max(float(score_R.std()), 1e-12)
    x_Rx2 = np.stack([(score_R - mean) / std, np.ones_like(score_R)], axis=1)
    w = np.zeros(2)
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
    score_R: np.ndarray,
    label_R: np.ndarray,
    platt: tuple[float, float],
    share: float,
) -> Mapping[str, float]:
    """Confusion matrix at probability one half, accuracy and log loss.

    Args:
      score_R: the model's scores of the events.
      label_R: 1 = like, 0 = not.
      platt: of `fit_platt`, fitted on other events.
      share: of likes among these.

    Returns:
      Counts `true_positive`, `false_positive`, `false_negative`, `true_negative`;
      `accuracy`; `log_loss` in nats; `log_loss_prior`, that of always predicting
      `share`; `auc` of liked above not liked events.
    """
    p_R = np.clip(_sigmoid(platt[0] * score_R + platt[1]), 1e-7, 1 - 1e-7)
    share = float(np.clip(share, 1e-7, 1 - 1e-7))
    says = p_R >= 0.5
    likes = label_R == 1
    return {
        "true_positive": int((says & likes).sum()),
        "false_positive": int((says & ~likes).sum()),
        "false_negative": int((~says & likes).sum()),
        "true_negative": int((~says & ~likes).sum()),
        "accuracy": float((says == likes).mean()),
        "log_loss": float(-np.log(np.where(likes, p_R, 1 - p_R)).mean()),
        "log_loss_prior": float(-np.log(np.where(likes, share, 1 - share)).mean()),
        "auc": _auc(score_R, likes),
    }


def _auc(score_R: np.ndarray, positive_R: np.ndarray) -> float:
    """Probability that a positive scores above a negative; ties count one half."""
    _, inverse, counts = np.unique(score_R, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    positives = int(positive_R.sum())
    negatives = len(score_R) - positives
    if not positives or not negatives:
        return float("nan")
    total = mean_rank[inverse][positive_R].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))
