"""Groups of test rows, and what each of them gets: what a mean over all hides."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from recjax.data.dataset import Data, Examples, count_events
from recjax.evaluation.metrics import (
    MetricValues,
    bootstrap_means,
    interval,
    with_intervals,
)

Subgroups = dict[str, dict[str, np.ndarray]]

ITEM_BINS = {"new": 0, "cold": 4, "warm": None}  # most training events of an item in it
HISTORY_BINS = {
    "0": 0,
    "1-5": 5,
    "6-20": 20,
    "21-50": 50,
    "51+": None,
}  # longest history
POPULARITY = ("head", "torso", "tail")
USER_PREFIX = "user/"  # before the name of a column of the user table
MAX_CATEGORIES = (
    12  # of such a column; one of numbers that has more is cut in quartiles
)
UNKNOWN = "unknown"  # users without a value
MIN_GROUP_ROWS = 30  # of a group that is compared with others

INTEGER = re.compile(r"-?(0|[1-9]\d*)")  # 01234 is a code
NUMBER = re.compile(rf"{INTEGER.pattern}(\.\d+)?")


def make_subgroups(data: Data, rows: Examples) -> Subgroups:
    """Groups of a split's rows: `{grouping: {group: mask_R}}`.

    - `item`, by training events of the target: `new` 0, `cold` 1 to 4, `warm` more;
    - `history`, by its whole length, also what is older than the user tower sees;
    - `popularity` of the target, see `popularity_groups`;
    - `user/<column>` for columns of the user table, see `user_groups`.

    Every row is in one group of each grouping; a group may be empty.
    """
    events_N = count_events(data)
    popularity_N = popularity_groups(events_N)
    buckets = {
        "item": bin_masks(events_N[rows.targets_R], ITEM_BINS),
        "history": bin_masks(rows.lengths(), HISTORY_BINS),
        "popularity": {
            name: popularity_N[rows.targets_R] == group
            for group, name in enumerate(POPULARITY)
        },
    }
    for column, groups in user_groups(data.users).items():
        buckets[USER_PREFIX + column] = {
            name: mask_V[rows.users_R] for name, mask_V in groups.items()
        }
    return buckets


def popularity_groups(events_N: np.ndarray) -> np.ndarray:
    """Thirds of the training events, from the most popular item on: 0, 1, 2 = tail.

    The head are the most popular items that together have the first third of the
    events, the torso those of the second. An item across a bound counts to the group
    before it; of items with as many events the catalogue's first come first. Items
    without an event are in the tail.
    """
    order_N = np.argsort(-events_N, kind="stable")
    before_N = np.cumsum(events_N[order_N]) - events_N[order_N]
    group_N = np.empty(len(events_N), np.int64)
    group_N[order_N] = 3 * before_N // max(int(events_N.sum()), 1)
    group_N[events_N == 0] = 2
    return group_N


def user_groups(users: pl.DataFrame) -> Subgroups:
    """Groups of users by each column of their table: `{column: {group: mask_V}}`.

    A column with 2 to 12 values has a group for each. One of numbers that has more is
    cut at the quartiles of the users, and a group is named by its least and its
    greatest number. Other columns are left out, and so are names: the first column,
    integers that no two users share, numbers with leading zeros. Users without a value
    are `unknown`.
    """
    found = {}
    for column in users.columns[1:]:
        texts = users[column]
        given = texts.filter(texts != "")
        values = given.unique().to_list()
        numbers = all(map(NUMBER.fullmatch, values))
        if 2 <= len(values) <= MAX_CATEGORIES:
            ordered = sorted(values, key=float if numbers else str)
            groups = {value: (texts == value).to_numpy() for value in ordered}
        elif numbers and len(values) > MAX_CATEGORIES and not _are_ids(given):
            groups = _quartiles(texts)
        else:
            continue
        if (missing := texts == "").any():
            named_V = groups.get(UNKNOWN, np.zeros(len(texts), bool))
            groups[UNKNOWN] = named_V | missing.to_numpy()
        found[column] = groups
    return found


def subgroup_report(
    values: MetricValues,
    buckets: Subgroups,
    users_R: np.ndarray,
    metrics: Sequence[str],
    resamples: int,
    least: int = MIN_GROUP_ROWS,
) -> dict[str, Any]:
    """Means of every group that has rows, with bootstrap intervals over its users.

    Args:
      values: `{metric: values_R}`.
      buckets: of `make_buckets`.
      users_R: whose row it is.
      metrics: which of the values.
      resamples: number of bootstrap samples.
      least: rows that a group needs to be compared.

    Returns:
      `{grouping: {"groups": {group: {"rows", metric: {"value", "low", "high"}}}}}`; for
      a column of the user table also `"gap": {metric: {"value", "low", "high", "best",
      "worst"}}`: the largest difference between the means of two groups of at least
      `least` rows, which they are, and the bootstrap interval of these two's
      difference, which knows nothing of their having been chosen. Where fewer than two
      groups have as many rows it is left out, and a metric that is the same in all.
    """
    report: dict[str, Any] = {}
    for name, masks in buckets.items():
        groups: dict[str, Any] = {}
        for group, mask_R in masks.items():
            if rows := int(mask_R.sum()):
                inside = {metric: values[metric][mask_R] for metric in metrics}
                means = with_intervals(inside, users_R[mask_R], resamples=resamples)
                groups[group] = {"rows": rows, **means}
        report[name] = {"groups": groups}
        many = {group: x for group, x in groups.items() if x["rows"] >= least}
        if name.startswith(USER_PREFIX) and len(many) > 1:
            means = {
                metric: {group: x[metric]["value"] for group, x in many.items()}
                for metric in metrics
            }
            report[name]["gap"] = {
                metric: _largest_gap(
                    means[metric], values[metric], masks, users_R, resamples
                )
                for metric in metrics
                if len(set(means[metric].values())) > 1
            }
    return report


def bin_masks(x_R: np.ndarray, most: Mapping[str, int | None]) -> dict[str, np.ndarray]:
    """Masks of consecutive bands, by the greatest value that is in each."""
    bounds = [bound for bound in most.values() if bound is not None]
    band_R = np.searchsorted(bounds, x_R)
    return {name: band_R == band for band, name in enumerate(most)}


def _largest_gap(
    means: Mapping[str, float],
    values_R: np.ndarray,
    masks: Mapping[str, np.ndarray],
    users_R: np.ndarray,
    resamples: int,
) -> dict[str, Any]:
    """Of the best and the worst group, whose users are not the same."""
    best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    first_S, second_S = (
        bootstrap_means(
            values_R[masks[group], None],
            users_R[masks[group]],
            resamples=resamples,
            seed=seed,
        )[:, 0]
        for seed, group in enumerate((best, worst))
    )
    found = interval(means[best] - means[worst], first_S - second_S)
    return {**found, "best": best, "worst": worst}


def _are_ids(texts: pl.Series) -> bool:
    return texts.is_unique().all() and all(map(INTEGER.fullmatch, texts))


def _quartiles(texts: pl.Series) -> dict[str, np.ndarray]:
    """Masks of up to four bands of numbers; a number is in one band only."""
    given_V = (texts != "").to_numpy()
    x_V = texts.replace("", "nan").cast(pl.Float64).to_numpy()
    cuts = np.quantile(x_V[given_V], (0.25, 0.5, 0.75), method="inverted_cdf")
    band_V = np.searchsorted(cuts, x_V)
    groups = {}
    for band in range(4):
        mask_V = given_V & (band_V == band)
        if mask_V.any():
            inside = sorted(texts.filter(mask_V).unique(), key=float)
            name = f"{inside[0]}-{inside[-1]}" if len(inside) > 1 else inside[0]
            groups[name] = mask_V
    return groups
