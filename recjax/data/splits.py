"""What is trained on and what is asked: the splits by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.data.dataset import Data, Examples, SeenItems
from recjax.data.ingest.reader import Events, Reader, look_up, words
from recjax.data.ingest.sources import locate

Splits = tuple[Examples, Examples, Examples]
NO_HISTORY = "targets without a history"
HELD_OUT = "training and validation rows whose targets are held out"


def load_data(config: Any) -> Data:
    """Reads and splits the data set that `config.data` names.

    Args:
      config: the whole config; `data` and `eval` decide the protocol.

    Raises:
      UserError: missing files or columns, or bad values.
    """
    c = config.data
    reader = Reader(config, locate(c.source))
    if c.split == "fixed":
        user_ids, items, splits = read_fixed(reader)
    else:
        events, items = reader.events()
        user_ids, splits = events.user_ids, SPLITS[c.split](reader, events)
    held_out_N = np.zeros(len(items), bool)
    if c.cold_items:
        held_out_N = sample_cold_items(c, splits, len(items))
        splits = hold_out(reader, splits, held_out_N)
        reader.protocol["cold_items"] = [c.cold_items, c.split_seed]
    return reader.finish(user_ids, items, splits, held_out_N)


def leave_one_out(reader: Reader, events: Events) -> Splits:
    """Last event of each user = test, last but one = valid, the rest = train.

    Users with two events are only trained on, users with one not at all.
    """
    del reader
    sizes_V = np.diff(events.bounds)

    def cut(drop: int, least: int, all_positions: bool) -> Examples:
        """Users with at least `least` events, without their last `drop`."""
        (users,) = np.nonzero(sizes_V >= least)
        starts, size = events.bounds[users], sizes_V[users]
        ends = starts + size - np.where(size >= 3, drop, 0) - 1
        return events.cut(users, starts, ends, all_positions=all_positions)

    return cut(2, 2, all_positions=True), cut(1, 3, False), cut(0, 3, False)


def split_by_ratio(reader: Reader, events: Events) -> Splits:
    """Of each user's events the last share is test, the one before it valid.

    `data.split_fractions` has both. Each event of the two is a target after all that
    precede it. Users with fewer than three events are only trained on.
    """
    c, sizes_V = reader.config.data, np.diff(events.bounds)
    # The key is part of the fingerprint, which has to stay the same.
    reader.protocol["shares"] = list(c.split_fractions)
    enough_V = sizes_V >= 3
    test_V = np.where(
        enough_V, np.maximum(np.rint(sizes_V * c.split_fractions[1]), 1), 0
    )
    valid_V = np.where(
        enough_V, np.maximum(np.rint(sizes_V * c.split_fractions[0]), 1), 0
    )
    first_test_V = (events.bounds[1:] - test_V).astype(np.int64)
    first_valid_V = (first_test_V - valid_V).astype(np.int64)
    return _split_at(reader, events, first_valid_V, first_test_V)


def split_by_time(reader: Reader, events: Events) -> Splits:
    """Global time: the newest share of all events is test, the one before it valid.

    `data.split_fractions` has both; events of one time stay together. Each event of the
    two is a target after all that precede it, whatever its user's number of events.
    """
    c = reader.config.data
    if not c.time:
        raise UserError("data.split: 'time' needs a column of times, data.time")
    reader.protocol["shares"] = list(c.split_fractions)
    ordered = np.sort(events.times)
    places = [1 - sum(c.split_fractions), 1 - c.split_fractions[1]]
    cuts = [ordered[min(round(p * len(ordered)), len(ordered) - 1)] for p in places]
    user = np.repeat(np.arange(len(events.user_ids)), np.diff(events.bounds))
    before = [np.bincount(user[events.times < t], minlength=user[-1] + 1) for t in cuts]
    first_valid_V, first_test_V = (events.bounds[:-1] + n for n in before)
    return _split_at(reader, events, first_valid_V, first_test_V)


def split_by_user(reader: Reader, events: Events) -> Splits:
    """User cold start: some users are never trained on, only their last event asked.

    `data.split_fractions` are those of validation and test, drawn by `data.split_seed`.
    Their histories are known when they are ranked for.
    """
    c = reader.config.data
    reader.protocol |= {"shares": list(c.split_fractions), "split_seed": c.split_seed}
    (users,) = np.nonzero(np.diff(events.bounds) >= 2)
    users = np.random.default_rng(c.split_seed).permutation(users)
    num_valid, num_test = (round(share * len(users)) for share in c.split_fractions)
    parts = np.split(users, [num_valid, num_valid + num_test])

    def cut(users: np.ndarray, all_positions: bool) -> Examples:
        users = np.sort(users)
        starts, ends = events.bounds[users], events.bounds[users + 1] - 1
        return events.cut(users, starts, ends, all_positions=all_positions)

    return cut(parts[2], True), cut(parts[0], False), cut(parts[1], False)


SPLITS: dict[str, Callable[[Reader, Events], Splits]] = {
    "leave_one_out": leave_one_out,
    "ratio": split_by_ratio,
    "time": split_by_time,
    "user": split_by_user,
}
SPLIT_NAMES = (*SPLITS, "fixed")


def _split_at(
    reader: Reader, events: Events, first_valid_V: np.ndarray, first_test_V: np.ndarray
) -> Splits:
    """Train, valid and test events, by where each user's second and third begin."""
    starts_V, ends_V = events.bounds[:-1], events.bounds[1:]

    def ask(first_V: np.ndarray, until_V: np.ndarray) -> Examples:
        users = np.repeat(np.arange(len(first_V)), until_V - first_V)
        before_V = np.cumsum(until_V - first_V) - (until_V - first_V)
        ends = (first_V - before_V)[users] + np.arange(len(users))
        starts = starts_V[users]
        known = ends > starts
        reader.leave_out(NO_HISTORY, int((~known).sum()))
        return events.cut(users[known], starts[known], ends[known])

    (trained,) = np.nonzero(first_valid_V > starts_V)
    last = first_valid_V[trained] - 1
    train = events.cut(trained, starts_V[trained], last, all_positions=True)
    return train, ask(first_valid_V, first_test_V), ask(first_test_V, ends_V)


def sample_cold_items(c: Any, splits: Splits, num_items: int) -> np.ndarray:
    """held_out_N: a share of the items with training events, drawn by the seed."""
    (known,) = np.nonzero(np.bincount(splits[0].events(), minlength=num_items))
    rng = np.random.default_rng(c.split_seed)
    held_out_N = np.zeros(num_items, bool)
    drawn = rng.choice(known, round(c.cold_items * len(known)), replace=False)
    held_out_N[drawn] = True
    return held_out_N


def hold_out(reader: Reader, splits: Splits, held_out_N: np.ndarray) -> Splits:
    """Item cold start: items that are new at the test, asked for but never seen.

    Their events leave all histories, and as targets train and valid.
    """
    train, valid, test = (
        _without(rows, held_out_N, as_targets=name == "test")
        for name, rows in zip(("train", "valid", "test"), splits, strict=True)
    )
    reader.leave_out(NO_HISTORY, len(splits[2]) - len(test))
    lost = len(splits[0]) - len(train) + len(splits[1]) - len(valid)
    reader.leave_out(HELD_OUT, lost)
    return train, valid, test


def _without(rows: Examples, held_out_N: np.ndarray, *, as_targets: bool) -> Examples:
    """Rows whose histories lack some items; these may stay as targets.

    What a user had stays known as seen, so that it is not recommended either.
    """
    keep = ~held_out_N[rows.flat]
    place = np.concatenate([[0], np.cumsum(keep)])
    starts_R, ends_R = place[rows.starts_R], place[rows.ends_R]
    flat = rows.flat[keep]
    times = None if rows.times is None else rows.times[keep]
    ratings = None if rows.ratings is None else rows.ratings[keep]
    targets_R, ratings_R = rows.targets_R.copy(), rows.ratings_R.copy()
    target_times_R = rows.target_times_R
    gone_R = np.zeros(len(rows), bool) if as_targets else held_out_N[targets_R]
    if rows.all_positions:  # the newest event that is left becomes the target
        (back,) = np.nonzero(gone_R & (ends_R > starts_R))
        ends_R[back] -= 1
        targets_R[back] = flat[ends_R[back]]
        if ratings is not None:
            ratings_R[back] = ratings[ends_R[back]]
        if times is not None and target_times_R is not None:
            target_times_R = target_times_R.copy()
            target_times_R[back] = times[ends_R[back]]
        gone_R[back] = False
    has_history_R = ends_R > starts_R
    (stay,) = np.nonzero(~gone_R & (has_history_R | rows.all_positions))
    return Examples(
        rows.users_R[stay],
        flat,
        starts_R[stay],
        ends_R[stay],
        targets_R[stay],
        ratings_R[stay],
        rows.all_positions,
        times,
        None if target_times_R is None else target_times_R[stay],
        ratings,
        SeenItems(rows.flat, rows.starts_R[stay], rows.ends_R[stay]),
    )


def read_fixed(reader: Reader) -> tuple[np.ndarray, pl.DataFrame, Splits]:
    """The three files `train`, `valid` and `test.inter` as they are.

    Each row is a user, a history (item ids separated by spaces) and a target.
    """
    c = reader.config.data
    parts = [reader.read(f"{name}.inter") for name in ("train", "valid", "test")]
    for table in parts:
        for column in (c.user, c.item, c.history):
            table.check_ids(column)
        if c.rating:
            table.check_numbers(c.rating, *c.rating_range)
    seen = [x for t in parts for x in (t.frame[c.item], words(t.frame[c.history]))]
    items, item_path = reader.items(pl.concat(seen))
    item_ids = items[c.item].to_numpy()
    for table in parts:
        table.check_known(c.item, items[c.item], item_path)
        known = pl.element().is_in(pl.Series(item_ids).implode())
        lists = table.frame[c.history].str.split(" ")
        all_known = lists.list.eval((pl.element() == "") | known).list.all()
        table.reject(~all_known, c.history, f"has an item that is not in {item_path}")
        reader.hide_users(table)
    user_ids = np.unique(pl.concat([t.frame[c.user] for t in parts]).to_numpy())

    def rows(frame: pl.DataFrame) -> Examples:
        lists = frame[c.history].str.split(" ")
        kept = lists.list.eval(pl.element().filter(pl.element() != ""))
        lengths = kept.list.len().cast(pl.Int64).to_numpy()
        ends = np.cumsum(lengths)
        ratings = np.full(len(frame), np.nan)
        if c.rating:
            ratings = frame[c.rating].to_numpy()
        return Examples(
            np.searchsorted(user_ids, frame[c.user].to_numpy()),
            look_up(words(frame[c.history]), item_ids),
            ends - lengths,
            ends,
            look_up(frame[c.item], item_ids),
            ratings,
        )

    train, valid, test = (rows(table.frame) for table in parts)
    return user_ids, items, (train, valid, test)
