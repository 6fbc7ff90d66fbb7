"""Subgroups of test examples and their metrics, which a mean over all hides."""

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

# Upper bin edges, inclusive; None is unbounded.
ITEM_BINS = {"new": 0, "cold": 4, "warm": None}  # training events of the target
HISTORY_BINS = {"0": 0, "1-5": 5, "6-20": 20, "21-50": 50, "51+": None}  # items
POPULARITY = ("head", "torso", "tail")
USER_PREFIX = "user/"  # marks groupings by a column of the user table
MAX_CATEGORIES = 12  # a numeric column with more values is cut at its quartiles
UNKNOWN = "unknown"  # group of the users without a value
MIN_GROUP_ROWS = 30  # test examples a group needs to enter the largest gap

INTEGER = re.compile(r"-?(0|[1-9]\d*)")  # 01234 is a code, not a number
NUMBER = re.compile(rf"{INTEGER.pattern}(\.\d+)?")


def make_subgroups(data: Data, examples: Examples) -> Subgroups:
    """Groups the examples of a split: `{grouping: {group: mask_R}}`.

    - `item`: by training events of the target: `new` 0, `cold` 1 to 4, `warm` more;
    - `history`: by full history length, including items older than the model reads;
    - `popularity`: by the target's group, see `popularity_groups`;
    - `user/<column>`: by a column of the user table, see `user_groups`.

    Every example is in exactly one group of each grouping; a group may be empty.
    """
    events_N = count_events(data)
    popularity_R = popularity_groups(events_N)[examples.targets_R]
    popularity = {name: popularity_R == i for i, name in enumerate(POPULARITY)}
    by_user = {
        USER_PREFIX + column: {
            name: mask_V[examples.users_R] for name, mask_V in masks.items()
        }
        for column, masks in user_groups(data.users).items()
    }
    return {
        "item": item_groups(data, examples),
        "history": bin_masks(examples.lengths(), HISTORY_BINS),
        "popularity": popularity,
        **by_user,
    }


def item_groups(data: Data, examples: Examples) -> dict[str, np.ndarray]:
    """Groups examples by the training events of their targets: `{group: mask_R}`."""
    group_R = event_group(count_events(data))[examples.targets_R]
    return {name: group_R == i for i, name in enumerate(ITEM_BINS)}


def popularity_groups(events_N: np.ndarray) -> np.ndarray:
    """Splits items into thirds of the training events: 0 = head, 1 = torso, 2 = tail.

    The head holds the most popular items that together have the first third of the
    events. An item across a boundary belongs to the more popular group; equally popular
    items are ordered as in the catalogue. Items without events are in the tail.
    """
    order_N = np.argsort(-events_N, kind="stable")
    before_N = np.cumsum(events_N[order_N]) - events_N[order_N]
    group_N = np.empty(len(events_N), np.int64)
    group_N[order_N] = 3 * before_N // max(int(events_N.sum()), 1)
    group_N[events_N == 0] = 2
    return group_N


def user_groups(users: pl.DataFrame) -> Subgroups:
    """Groups users by each column of the user table: `{column: {group: mask_V}}`.

    A column with 2 to 12 distinct values gives a group per value. A numeric column with
    more is cut at the quartiles of the users, and a group is named by its smallest and
    largest number. Users without a value are in the group `unknown`.
    """
    # All other columns are skipped, and so is everything that looks like an identifier:
    # the first column, integers unique per user, and numbers with leading zeros.
    groupings = {}
    for column in users.columns[1:]:
        texts = users[column]
        given = texts.filter(texts != "")
        values = given.unique().to_list()
        numeric = all(map(NUMBER.fullmatch, values))
        if 2 <= len(values) <= MAX_CATEGORIES:
            ordered = sorted(values, key=float if numeric else str)
            groups = {value: (texts == value).to_numpy() for value in ordered}
        elif numeric and len(values) > MAX_CATEGORIES and not _are_ids(given):
            groups = _quartiles(texts)
        else:
            continue
        if (missing := texts == "").any():
            unknown_V = groups.get(UNKNOWN, np.zeros(len(texts), bool))
            groups[UNKNOWN] = unknown_V | missing.to_numpy()
        groupings[column] = groups
    return groupings


def subgroup_report(
    values: MetricValues,
    subgroups: Subgroups,
    users_R: np.ndarray,
    *,
    metrics: Sequence[str],
    bootstrap_samples: int,
    min_rows: int = MIN_GROUP_ROWS,
) -> dict[str, Any]:
    """Returns metric means of every non-empty group, with bootstrap intervals.

    Returns:
      `{grouping: {"groups": {group: {"rows", metric: {"value", "low", "high"}}}}}`. A
      grouping by a column of the user table with at least two groups of `min_rows`
      examples also has `"min_rows"` and `"largest_gap": {metric: {"value", "low",
      "high", "best", "worst"}}`: the difference between the best and the worst of these
      groups with its bootstrap interval, for every metric that differs between groups.
    """
    report: dict[str, Any] = {}
    for name, masks in subgroups.items():
        groups: dict[str, Any] = {}
        for group, mask_R in masks.items():
            if rows := int(mask_R.sum()):
                inside = {metric: values[metric][mask_R] for metric in metrics}
                groups[group] = {"rows": rows} | with_intervals(
                    inside, users_R[mask_R], bootstrap_samples=bootstrap_samples
                )
        report[name] = {"groups": groups}
        large = {group: x for group, x in groups.items() if x["rows"] >= min_rows}
        if not name.startswith(USER_PREFIX) or len(large) < 2:
            continue
        report[name] |= {"min_rows": min_rows, "largest_gap": {}}
        for metric in metrics:
            by_group = {group: x[metric]["value"] for group, x in large.items()}
            if len(set(by_group.values())) > 1:
                report[name]["largest_gap"][metric] = _largest_gap(
                    by_group, values[metric], masks, users_R, bootstrap_samples
                )
    return report


def event_group(events_N: np.ndarray) -> np.ndarray:
    """Returns the group of items by their training events: 0 new, 1 cold, 2 warm."""
    return bin_index(events_N, ITEM_BINS)


def bin_masks(
    x_R: np.ndarray, bin_edges: Mapping[str, int | None]
) -> dict[str, np.ndarray]:
    """Returns masks of consecutive bins, given the largest value of each bin."""
    bin_R = bin_index(x_R, bin_edges)
    return {name: bin_R == i for i, name in enumerate(bin_edges)}


def bin_index(x_R: np.ndarray, bin_edges: Mapping[str, int | None]) -> np.ndarray:
    """Returns the index of the bin of each value, given the largest of each bin."""
    bounds = [bound for bound in bin_edges.values() if bound is not None]
    return np.searchsorted(bounds, x_R)


def _largest_gap(
    means: Mapping[str, float],
    values_R: np.ndarray,
    masks: Mapping[str, np.ndarray],
    users_R: np.ndarray,
    bootstrap_samples: int,
) -> dict[str, Any]:
    """Compares the best and the worst group, which share no user."""
    # The interval does not correct for selecting the extreme pair.
    best = max(means, key=means.__getitem__)
    worst = min(means, key=means.__getitem__)
    # Disjoint users are independent, so each group is resampled by its own seed.
    samples = []
    for seed, mask_R in enumerate((masks[best], masks[worst])):
        table_Rx1, users = values_R[mask_R, None], users_R[mask_R]
        means_Sx1 = bootstrap_means(
            table_Rx1, users, bootstrap_samples=bootstrap_samples, seed=seed
        )
        samples.append(means_Sx1[:, 0])
    gap = interval(means[best] - means[worst], samples[0] - samples[1])
    return {**gap, "best": best, "worst": worst}


def _are_ids(texts: pl.Series) -> bool:
    return texts.is_unique().all() and all(map(INTEGER.fullmatch, texts))


def _quartiles(texts: pl.Series) -> dict[str, np.ndarray]:
    """Returns masks of up to four bins; equal numbers are always in the same bin."""
    given_V = (texts != "").to_numpy()
    x_V = texts.replace("", "nan").cast(pl.Float64).to_numpy()
    bounds = np.quantile(x_V[given_V], (0.25, 0.5, 0.75), method="inverted_cdf")
    bin_V = np.searchsorted(bounds, x_V)
    groups = {}
    for quartile in range(4):
        mask_V = given_V & (bin_V == quartile)
        if mask_V.any():
            first, *others = sorted(texts.filter(mask_V).unique(), key=float)
            groups[f"{first}-{others[-1]}" if others else first] = mask_V
    return groups
