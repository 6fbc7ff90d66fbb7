"""The data report, and warnings about misleading evaluation settings."""

from typing import Any

import numpy as np
import polars as pl

from recjax.data.dataset import NO_SPLIT, Data, Examples, count_events
from recjax.data.text.packing import Tokens

MAX_REJECTED_SHARE = 0.1  # of the rows of a file
MAX_UNKNOWN_SHARE = 0.1  # of all tokens; more means another language or script
MIN_DISTINCT_SHARE = 0.5  # of the items


def data_report(data: Data, tokens: Tokens | None, config: Any) -> str:
    """Describes the sizes of the data set, its splits and its texts."""
    events_N = count_events(data)
    num_events = int(events_N.sum())
    # Repeated events are one pair of user and item.
    users, events = data.train.pairs()
    num_pairs = len(np.unique(users.astype(np.int64) * data.num_items + events))
    density = num_pairs / max(len(data.user_ids) * data.num_items, 1)
    lengths_R = data.train.lengths() + 1
    longer = (lengths_R > config.data.history_length).mean()
    items = f"{data.num_items:,}, {(events_N == 0).sum():,} without a training event"
    rows = {
        "users": _describe_users(data),
        "items": items,
        "training events": f"{num_events:,} (density {density:.2%})",
        "training examples": f"{len(data.train):,}",
        "events per example": f"median {int(np.median(lengths_R))}, longest "
        f"{lengths_R.max()}, {longer:.0%} longer than data.history_length",
    }
    if config.data.split == NO_SPLIT:
        rows["held out"] = "nothing; metrics are of the last event of each user"
    else:
        rows["validation"] = _describe_split(data.valid, events_N)
        rows["test"] = _describe_split(data.test, events_N)
    for name, (given, used) in data.row_counts.items():
        if given > used:
            rows[name] = f"{given - used:,} of {given:,} rows rejected"
            bad = data.rejected.filter(pl.col("file") == name)
            for column, reason, number, count in _count_rejected(bad):
                where = f"{column}: " if column else ""
                rows[f"{name}, row {number}"] = f"{count:,} x {where}{reason}"
    rows |= {what: f"{count:,}" for what, count in data.left_out.items()}
    if data.held_out_N.any():
        rows["cold items held out"] = f"{data.held_out_N.sum():,}"
    if tokens is not None:
        lengths_N = tokens.lengths
        cut = (lengths_N == config.text.max_tokens).mean()
        limit = f", {cut:.1%} reach text.max_tokens" if cut else ""
        mean = f"mean {lengths_N.mean():.1f}"
        rows["tokens per item"] = f"{mean}, longest {lengths_N.max()}{limit}"
        if tokens.unknown_share:
            rows["unknown tokens"] = f"{tokens.unknown_share:.1%}"
        if (distinct := tokens.count_distinct()) < data.num_items:
            rows["distinct texts"] = f"{distinct:,}"
        if empty := int(data.blank(config.text.template).sum()):
            rows["items without text"] = f"{empty:,}"
    rows["protocol"] = data.fingerprint
    width = max(map(len, rows))
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows.items())


def _count_rejected(bad: pl.DataFrame) -> list[tuple[str, str, int, int]]:
    """Returns (column, reason, first row, number of rows), the most frequent first."""
    groups = bad.group_by("column", "reason").agg(
        first=pl.col("row").min(), count=pl.len()
    )
    return groups.sort("count", "first", descending=[True, False]).rows()


def _describe_users(data: Data) -> str:
    columns = ", ".join(data.users.columns[1:])
    known = f", described by {columns}" if columns else ""
    splits = (data.train, data.valid, data.test)
    used = len(np.unique(np.concatenate([split.users_R for split in splits])))
    unused = len(data.user_ids) - used
    few = f", {unused:,} of them unused because of too few events" if unused else ""
    return f"{len(data.user_ids):,}{known}{few}"


def _describe_split(examples: Examples, events_N: np.ndarray) -> str:
    cold = (events_N[examples.targets_R] == 0).mean()
    repeats = examples.repeats_R.mean()
    repeated = f", {repeats:.1%} repeat an item of the history" if repeats else ""
    unseen = f"{cold:.1%} of the targets unseen in training"
    return f"{len(examples):,} examples, {unseen}{repeated}"


def row_warnings(data: Data) -> list[str]:
    """Warns of files of which a large part was rejected."""
    return [
        f"{(given - used) / given:.0%} of the rows of {name} are rejected, see above"
        for name, (given, used) in data.row_counts.items()
        if given - used > MAX_REJECTED_SHARE * given
    ]


def text_warnings(tokens: Tokens) -> list[str]:
    """Warns of texts that tell the encoder little about the items."""
    warnings = []
    if tokens.unknown_share > MAX_UNKNOWN_SHARE:
        warnings.append(
            f"{tokens.unknown_share:.0%} of the tokens are not in the vocabulary of "
            "the encoder; choose a text.encoder for the language of the texts"
        )
    num_items, distinct = len(tokens.lengths), tokens.count_distinct()
    if distinct < MIN_DISTINCT_SHARE * num_items:
        warnings.append(
            f"the {num_items:,} items have only {distinct:,} different texts; add "
            "columns that tell them apart to text.template, or raise text.max_tokens"
        )
    return warnings


def protocol_warnings(data: Data, config: Any) -> list[str]:
    """Warns of data and settings (section `eval`) that make metrics misleading."""
    warnings = []
    if data.test_examples_in_train:
        warnings.append(
            f"{data.test_examples_in_train:,} of {len(data.test):,} test examples are "
            "training examples too, with the same user, history and target, so metrics "
            "measure what the model memorizes; remove them from one of the two files"
        )
    # Both settings make the task easier than recommending from the catalogue.
    if config.candidates:
        warnings.append(
            f"each target is ranked among only {config.candidates} sampled items; this "
            "can order models differently than the full catalogue does (Krichene and "
            "Rendle, KDD 2020); set eval.candidates=0 to rank all items"
        )
    ratings, threshold = data.train.ratings, config.like_threshold
    if threshold and ratings is not None and not (ratings >= threshold).any():
        warnings.append(
            f"no rating is at least {threshold:g}, which is eval.like_threshold"
        )
    if config.mask_seen and (repeats := data.test.repeats_R.mean()):
        warnings.append(
            f"{repeats:.1%} of the test targets are repeat interactions; with "
            "eval.mask_seen=True all other seen items are masked, so these targets are "
            "easy to spot; set eval.mask_seen=False to rank all items"
        )
    return warnings
