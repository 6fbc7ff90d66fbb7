"""Splits a data set into training, validation and test examples."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.data.dataset import NO_SPLIT, Data, Examples, concat_ranges
from recjax.data.ingest.reader import Events, Reader, item_indices
from recjax.data.ingest.sources import locate_data

Splits = tuple[Examples, Examples, Examples]  # training, validation, test
# Descriptions in `Data.left_out`.
NO_HISTORY = "targets without a history"
HELD_OUT = "training examples with held-out targets"


def load_data(config: Any) -> Data:
    """Reads and splits the data set that `config.data` names.

    Raises:
      UserError: missing files or columns, or bad values.
    """
    data = config.data
    reader = Reader(config, locate_data(data.source))
    if data.split == "fixed":
        user_ids, items, splits = read_fixed(reader)
    else:
        events, items = reader.events()
        user_ids, splits = events.user_ids, SPLITS[data.split](reader, events)
    held_out_N = np.zeros(len(items), bool)
    if data.cold_items:
        # Other items have no training events to remove.
        (known,) = np.nonzero(np.bincount(splits[0].events(), minlength=len(items)))
        rng = np.random.default_rng(data.split_seed)
        size = round(data.cold_items * len(known))
        held_out_N[rng.choice(known, size, replace=False)] = True
        splits = hold_out(reader, splits, held_out_N)
        # Sampled items depend on the seed, so both are part of the protocol.
        reader.protocol["cold_items"] = [data.cold_items, data.split_seed]
    return reader.make_data(user_ids, items, splits, held_out_N)


def leave_one_out(reader: Reader, events: Events) -> Splits:
    """Tests on the last event of each user, validates on the one before.

    All earlier events are for training. Users with two events are only used for
    training, users with one event not at all.
    """
    sizes_V = np.diff(events.bounds)

    def select(min_events: int, dropped: int, all_positions: bool) -> Examples:
        """Users with at least `min_events` events, without their last `dropped`."""
        (users,) = np.nonzero(sizes_V >= min_events)
        # A user with two events is in training only, so no event is dropped.
        end_R = events.bounds[users + 1] - np.where(sizes_V[users] >= 3, dropped, 0)
        return events.cut(users, end_R - 1, all_positions)

    train = select(2, dropped=2, all_positions=True)
    valid = select(3, dropped=1, all_positions=False)
    return train, valid, select(3, dropped=0, all_positions=False)


def split_by_ratio(reader: Reader, events: Events) -> Splits:
    """Tests on the last fraction of each user's events, validates on the one before.

    Each held-out event is a target, with all earlier events of the user as its history.
    Users with fewer than three events are only used for training.
    """
    fractions = reader.config.data.split_fractions
    # The key is part of the fingerprint, which has to stay the same.
    reader.protocol["shares"] = list(fractions)
    sizes_V = np.diff(events.bounds)

    def count(fraction: float) -> np.ndarray:
        """Held-out events of each user, at least one."""
        held_out_V = np.maximum(np.rint(sizes_V * fraction), 1)
        return np.where(sizes_V >= 3, held_out_V, 0).astype(np.int64)

    first_test_V = events.bounds[1:] - count(fractions[1])
    # Rounded, and with at least one event each, the two may exceed a short history.
    first_valid_V = np.maximum(first_test_V - count(fractions[0]), events.bounds[:-1])
    return _split_at(reader, events, first_valid_V, first_test_V)


def split_by_time(reader: Reader, events: Events) -> Splits:
    """Tests on the newest fraction of all events, validates on the one before.

    Events of equal time are in the same split. Each held-out event is a target, with
    all earlier events of the user as its history, however many events the user has.
    """
    data = reader.config.data
    if not data.time:
        raise UserError("data.split: 'time' needs a column of times; set data.time")
    reader.protocol["shares"] = list(data.split_fractions)
    # Cuts are times and not numbers of events, so that equal times are not split.
    ordered = np.sort(events.times)
    quantiles = [1 - sum(data.split_fractions), 1 - data.split_fractions[1]]
    cuts = [ordered[min(round(q * len(ordered)), len(ordered) - 1)] for q in quantiles]
    user = np.repeat(np.arange(len(events.user_ids)), np.diff(events.bounds))
    before = [np.bincount(user[events.times < t], minlength=user[-1] + 1) for t in cuts]
    first_valid_V, first_test_V = (events.bounds[:-1] + n for n in before)
    return _split_at(reader, events, first_valid_V, first_test_V)


def split_by_user(reader: Reader, events: Events) -> Splits:
    """Tests and validates on users that are never trained on (user cold start).

    The users are sampled with `data.split_seed`. Their last event is the target, all
    others are the history.
    """
    data = reader.config.data
    reader.protocol["shares"] = list(data.split_fractions)
    reader.protocol["split_seed"] = data.split_seed
    (users,) = np.nonzero(np.diff(events.bounds) >= 2)
    users = np.random.default_rng(data.split_seed).permutation(users)
    num_valid, num_test = (round(share * len(users)) for share in data.split_fractions)
    valid, test, train = np.split(users, [num_valid, num_valid + num_test])

    def select(users: np.ndarray, all_positions: bool) -> Examples:
        users = np.sort(users)  # permuted above
        return events.cut(users, events.bounds[users + 1] - 1, all_positions)

    return select(train, True), select(valid, False), select(test, False)


def without_split(reader: Reader, events: Events) -> Splits:
    """Trains on all events, for a model that is used instead of compared.

    Validation and test are the last event of each user, which is a training event too:
    their metrics are in-sample.
    """
    (users,) = np.nonzero(np.diff(events.bounds))
    train = events.cut(users, events.bounds[users + 1] - 1, all_positions=True)
    (users,) = np.nonzero(np.diff(events.bounds) >= 2)
    last = events.cut(users, events.bounds[users + 1] - 1, all_positions=False)
    return train, last, last


# `data.split_fractions` gives the fractions of validation and test.
SPLITS: dict[str, Callable[[Reader, Events], Splits]] = {
    "leave_one_out": leave_one_out,
    "ratio": split_by_ratio,
    "time": split_by_time,
    "user": split_by_user,
    NO_SPLIT: without_split,
}
SPLIT_NAMES = (*SPLITS, "fixed")


def _split_at(
    reader: Reader, events: Events, first_valid_V: np.ndarray, first_test_V: np.ndarray
) -> Splits:
    """Splits the events of each user at the first validation and first test event."""

    def held_out(first_V: np.ndarray, stop_V: np.ndarray) -> Examples:
        """Makes an example of each event from `first_V` to before `stop_V`."""
        targets = concat_ranges(first_V, stop_V)
        users = np.repeat(np.arange(len(first_V)), stop_V - first_V)
        # There is no history to predict a user's first event from.
        usable = targets > events.bounds[users]
        reader.count_left_out(NO_HISTORY, int((~usable).sum()))
        return events.cut(users[usable], targets[usable], all_positions=False)

    # One event is enough for training: it counts for popularity.
    (trained,) = np.nonzero(first_valid_V > events.bounds[:-1])
    train = events.cut(trained, first_valid_V[trained] - 1, all_positions=True)
    valid = held_out(first_valid_V, first_test_V)
    return train, valid, held_out(first_test_V, events.bounds[1:])


def hold_out(reader: Reader, splits: Splits, held_out_N: np.ndarray) -> Splits:
    """Makes items new: they remain as targets of validation and test, nowhere else.

    Removes them from all histories, and from the targets of training. Validation keeps
    them, so that what it chooses is chosen for new items too.
    """
    train = _without(splits[0], held_out_N)
    valid, test = (_without(x, held_out_N, keep_targets=True) for x in splits[1:])
    removed = len(splits[1]) - len(valid) + len(splits[2]) - len(test)
    reader.count_left_out(NO_HISTORY, removed)
    reader.count_left_out(HELD_OUT, len(splits[0]) - len(train))
    return train, valid, test


def _without(
    examples: Examples, held_out_N: np.ndarray, *, keep_targets: bool = False
) -> Examples:
    """Removes items from histories and, unless `keep_targets`, from the targets."""
    # The bounds of histories move, because events before them are removed.
    keep = ~held_out_N[examples.items]
    new_index = np.append(0, np.cumsum(keep))
    starts_R, ends_R = new_index[examples.starts_R], new_index[examples.ends_R]
    removed_R = held_out_N[examples.targets_R] & (not keep_targets)
    # If a sequence loses its target, its newest remaining event becomes the target.
    (shorter,) = np.nonzero(removed_R & (ends_R > starts_R) & examples.all_positions)
    ends_R[shorter] -= 1
    removed_R[shorter] = False

    def update(values: Any, targets_R: Any) -> tuple[Any, Any]:
        """Returns the values of the remaining events, and of the targets."""
        if values is None:
            return None, targets_R
        values, targets_R = values[keep], targets_R.copy()
        targets_R[shorter] = values[ends_R[shorter]]
        return values, targets_R

    items, targets_R = update(examples.items, examples.targets_R)
    times, target_times_R = update(examples.times, examples.target_times_R)
    ratings, ratings_R = update(examples.ratings, examples.ratings_R)
    remaining = replace(
        examples,
        items=items,
        starts_R=starts_R,
        ends_R=ends_R,
        targets_R=targets_R,
        ratings_R=ratings_R,
        times=times,
        target_times_R=target_times_R,
        ratings=ratings,
        seen_items=examples,  # removed items must not be recommended again
    )
    usable_R = (ends_R > starts_R) | examples.all_positions
    return remaining.take(np.flatnonzero(~removed_R & usable_R))


def read_fixed(reader: Reader) -> tuple[np.ndarray, pl.DataFrame, Splits]:
    """Reads the splits from three files: `train.inter`, `valid.inter`, `test.inter`.

    Each row has a user, a history (item ids separated by spaces) and a target.
    """
    data = reader.config.data
    tables = [reader.read(f"{name}.inter") for name in ("train", "valid", "test")]
    for table in tables:
        for column in (data.user, data.item, data.history):
            table.check_ids(column)
        if data.rating:
            table.check_numbers(data.rating, *data.rating_range)
    histories = pl.col(data.history).str.split(" ")
    histories = histories.list.eval(pl.element().filter(pl.element() != ""))
    # Without an item table, the catalogue is every item in a history or a target.
    used = [table.frame[data.item] for table in tables]
    used += [table.frame.select(histories.explode()).to_series() for table in tables]
    items, item_path = reader.items(pl.concat(used))
    item_ids = items[data.item]
    for table in tables:
        table.check_known(data.item, item_ids, item_path)
        known = histories.list.eval(pl.element().is_in(item_ids.implode())).list.all()
        table.reject(~known, data.history, f"has an item that is not in {item_path}")
        reader.check_rows(table, "no examples")
        reader.hide_users(table)
    # Only now, because `hide_users` may have replaced the ids.
    user_ids = np.unique(pl.concat([t.frame[data.user] for t in tables]).to_numpy())

    def examples(frame: pl.DataFrame) -> Examples:
        items_of = frame.select(histories).to_series()
        ends = np.cumsum(items_of.list.len().cast(pl.Int64).to_numpy())
        unknown_R = np.full(len(frame), np.nan)
        return Examples(
            np.searchsorted(user_ids, frame[data.user].to_numpy()),
            item_indices(items_of.explode(), item_ids),
            np.append(0, ends)[:-1],
            ends,
            item_indices(frame[data.item], item_ids),
            frame[data.rating].to_numpy() if data.rating else unknown_R,
        )

    same = [pl.col(data.user), histories.list.join(" "), pl.col(data.item)]
    repeated = tables[2].frame.join(tables[0].frame, on=same, how="semi")
    reader.test_examples_in_train = len(repeated)
    train, valid, test = (examples(table.frame) for table in tables)
    return user_ids, items, (train, valid, test)
