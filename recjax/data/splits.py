"""Splits a data set into training, validation and test examples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.data.dataset import Data, Examples, SeenItems
from recjax.data.ingest.reader import Events, Reader, item_indices, split_words
from recjax.data.ingest.sources import locate

Splits = tuple[Examples, Examples, Examples]
NO_HISTORY = "targets without a history"
HELD_OUT = "training and validation examples with held-out targets"


def load_data(config: Any) -> Data:
    """Reads and splits the data set that `config.data` names.

    Args:
      config: the complete config; `data` and `eval` determine the protocol.

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
        held_out_N = sample_cold_items(
            len(items), splits[0], c.cold_items, c.split_seed
        )
        splits = hold_out(reader, splits, held_out_N)
        # Sampled items depend on the seed, so both are part of the protocol.
        reader.protocol["cold_items"] = [c.cold_items, c.split_seed]
    return reader.finish(user_ids, items, splits, held_out_N)


def leave_one_out(reader: Reader, events: Events) -> Splits:
    """Tests on the last event of each user, validates on the one before.

    All earlier events are for training. Users with two events are only used for
    training, users with one event are not used.
    """
    del reader
    sizes_V = np.diff(events.bounds)

    def select(min_events: int, dropped: int, all_positions: bool) -> Examples:
        """Users with at least `min_events` events, without their last `dropped`."""
        (users,) = np.nonzero(sizes_V >= min_events)
        starts, sizes = events.bounds[users], sizes_V[users]
        # A user of two events has nothing held out, and is in training only.
        ends = starts + sizes - np.where(sizes >= 3, dropped, 0) - 1
        return events.cut(users, starts, ends, all_positions=all_positions)

    return select(2, 2, all_positions=True), select(3, 1, False), select(3, 0, False)


def split_by_ratio(reader: Reader, events: Events) -> Splits:
    """Tests on the last fraction of each user's events, validates on the one before.

    `data.split_fractions` has the two fractions. Each of their events is a target, with
    all earlier events of the user as its history. Users with fewer than three events
    are only used for training.
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
    first_valid_V = first_test_V - count(fractions[0])
    return _split_at(reader, events, first_valid_V, first_test_V)


def split_by_time(reader: Reader, events: Events) -> Splits:
    """Tests on the newest fraction of all events, validates on the one before.

    `data.split_fractions` has the two fractions; events of equal time are in the same
    split. Each held-out event is a target, with all earlier events of the user as its
    history, however many events the user has.
    """
    c = reader.config.data
    if not c.time:
        raise UserError("data.split: 'time' needs a column of times; set data.time")
    reader.protocol["shares"] = list(c.split_fractions)
    # Cuts are times and not numbers of events, so that equal times are not split.
    ordered = np.sort(events.times)
    quantiles = [1 - sum(c.split_fractions), 1 - c.split_fractions[1]]
    cuts = [ordered[min(round(q * len(ordered)), len(ordered) - 1)] for q in quantiles]
    user = np.repeat(np.arange(len(events.user_ids)), np.diff(events.bounds))
    before = [np.bincount(user[events.times < t], minlength=user[-1] + 1) for t in cuts]
    first_valid_V, first_test_V = (events.bounds[:-1] + n for n in before)
    return _split_at(reader, events, first_valid_V, first_test_V)


def split_by_user(reader: Reader, events: Events) -> Splits:
    """Tests and validates on users that are never trained on (user cold start).

    `data.split_fractions` are the fractions of users for validation and test, sampled
    with `data.split_seed`. Their last event is the target, all others the history.
    """
    c = reader.config.data
    reader.protocol |= {"shares": list(c.split_fractions), "split_seed": c.split_seed}
    (users,) = np.nonzero(np.diff(events.bounds) >= 2)
    users = np.random.default_rng(c.split_seed).permutation(users)
    num_valid, num_test = (round(share * len(users)) for share in c.split_fractions)
    valid, test, train = np.split(users, [num_valid, num_valid + num_test])

    def select(users: np.ndarray, all_positions: bool) -> Examples:
        users = np.sort(users)  # permuted above
        starts, ends = events.bounds[users], events.bounds[users + 1] - 1
        return events.cut(users, starts, ends, all_positions=all_positions)

    return select(train, True), select(valid, False), select(test, False)


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
    """Splits the events of each user at the first validation and first test event."""
    starts_V, ends_V = events.bounds[:-1], events.bounds[1:]

    def held_out(first_V: np.ndarray, stop_V: np.ndarray) -> Examples:
        """An example for each event in [first, stop), with all events before it."""
        # Targets of all users in one array: first, first + 1, ..., stop - 1 of each.
        sizes_V = stop_V - first_V
        users = np.repeat(np.arange(len(sizes_V)), sizes_V)
        offsets_V = np.cumsum(sizes_V) - sizes_V
        targets = (first_V - offsets_V)[users] + np.arange(len(users))
        starts = starts_V[users]
        # A user's very first event cannot be predicted from anything.
        known = targets > starts
        reader.leave_out(NO_HISTORY, int((~known).sum()))
        return events.cut(users[known], starts[known], targets[known])

    # One event is enough for training: it counts for popularity.
    (trained,) = np.nonzero(first_valid_V > starts_V)
    last = first_valid_V[trained] - 1
    train = events.cut(trained, starts_V[trained], last, all_positions=True)
    valid = held_out(first_valid_V, first_test_V)
    return train, valid, held_out(first_test_V, ends_V)


def sample_cold_items(
    num_items: int, train: Examples, fraction: float, seed: int
) -> np.ndarray:
    """held_out_N: a random fraction of the items that have training events."""
    (known,) = np.nonzero(np.bincount(train.events(), minlength=num_items))
    rng = np.random.default_rng(seed)
    held_out_N = np.zeros(num_items, bool)
    sampled = rng.choice(known, round(fraction * len(known)), replace=False)
    held_out_N[sampled] = True
    return held_out_N


def hold_out(reader: Reader, splits: Splits, held_out_N: np.ndarray) -> Splits:
    """Makes some items cold: targets of the test, but otherwise unseen.

    Removes them from all histories, and from the targets of training and validation.
    """
    train, valid = (_without(examples, held_out_N) for examples in splits[:2])
    test = _without(splits[2], held_out_N, keep_targets=True)
    reader.leave_out(NO_HISTORY, len(splits[2]) - len(test))
    removed = len(splits[0]) - len(train) + len(splits[1]) - len(valid)
    reader.leave_out(HELD_OUT, removed)
    return train, valid, test


def _without(
    examples: Examples, held_out_N: np.ndarray, *, keep_targets: bool = False
) -> Examples:
    """Removes items from histories and, unless `keep_targets`, from the targets.

    The items stay known as seen, so that they are not recommended again.
    """
    # Bounds of the histories move with the events that are removed before them.
    keep = ~held_out_N[examples.items]
    new_index = np.concatenate([[0], np.cumsum(keep)])
    starts_R, ends_R = new_index[examples.starts_R], new_index[examples.ends_R]
    items = examples.items[keep]
    times = None if examples.times is None else examples.times[keep]
    ratings = None if examples.ratings is None else examples.ratings[keep]
    targets_R, ratings_R = examples.targets_R.copy(), examples.ratings_R.copy()
    target_times_R = examples.target_times_R
    removed_R = held_out_N[targets_R] & (not keep_targets)
    if examples.all_positions:
        # A sequence survives the loss of its target: its newest remaining event is
        # the new target.
        (shorter,) = np.nonzero(removed_R & (ends_R > starts_R))
        ends_R[shorter] -= 1
        targets_R[shorter] = items[ends_R[shorter]]
        if ratings is not None:
            ratings_R[shorter] = ratings[ends_R[shorter]]
        if times is not None and target_times_R is not None:
            target_times_R = target_times_R.copy()
            target_times_R[shorter] = times[ends_R[shorter]]
        removed_R[shorter] = False
    usable_R = (ends_R > starts_R) | examples.all_positions
    (kept,) = np.nonzero(~removed_R & usable_R)
    return Examples(
        examples.users_R[kept],
        items,
        starts_R[kept],
        ends_R[kept],
        targets_R[kept],
        ratings_R[kept],
        examples.all_positions,
        times,
        None if target_times_R is None else target_times_R[kept],
        ratings,
        SeenItems(examples.items, examples.starts_R[kept], examples.ends_R[kept]),
    )


def read_fixed(reader: Reader) -> tuple[np.ndarray, pl.DataFrame, Splits]:
    """Reads the splits from three files: `train.inter`, `valid.inter`, `test.inter`.

    Each row has a user, a history (item ids separated by spaces) and a target.
    """
    c = reader.config.data
    tables = [reader.read(f"{name}.inter") for name in ("train", "valid", "test")]
    for table in tables:
        for column in (c.user, c.item, c.history):
            table.check_ids(column)
        if c.rating:
            table.check_numbers(c.rating, *c.rating_range)
    # Without an item table, the catalogue is every item in a history or a target.
    columns = [
        column
        for table in tables
        for column in (table.frame[c.item], split_words(table.frame[c.history]))
    ]
    items, item_path = reader.items(pl.concat(columns))
    item_ids = items[c.item].to_numpy()
    known = pl.element().is_in(pl.Series(item_ids).implode())
    for table in tables:
        table.check_known(c.item, items[c.item], item_path)
        histories = table.frame[c.history].str.split(" ")
        all_known = histories.list.eval((pl.element() == "") | known).list.all()
        table.reject(~all_known, c.history, f"has an item that is not in {item_path}")
        reader.hide_users(table)
    # Read after the ids were hashed: these are the hashes.
    user_ids = np.unique(pl.concat([t.frame[c.user] for t in tables]).to_numpy())

    def examples(frame: pl.DataFrame) -> Examples:
        histories = frame[c.history].str.split(" ")
        histories = histories.list.eval(pl.element().filter(pl.element() != ""))
        lengths = histories.list.len().cast(pl.Int64).to_numpy()
        ends = np.cumsum(lengths)
        ratings = np.full(len(frame), np.nan)
        if c.rating:
            ratings = frame[c.rating].to_numpy()
        return Examples(
            np.searchsorted(user_ids, frame[c.user].to_numpy()),
            item_indices(split_words(frame[c.history]), item_ids),
            ends - lengths,
            ends,
            item_indices(frame[c.item], item_ids),
            ratings,
        )

    train, valid, test = (examples(table.frame) for table in tables)
    return user_ids, items, (train, valid, test)
