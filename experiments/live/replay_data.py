"""Divides a data set in time: the past to train on, and the stream that follows it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.data.dataset import Data
from recjax.data.ingest.reader import Reader
from recjax.data.ingest.sources import locate_data
from recjax.data.splits import load_data
from recjax.data.text.template import fill_template, parse_template

PREFIX = "past"
USER, TIME = "user", "time"


class StreamEvent(NamedTuple):
    """An event of the stream; `time` is in seconds, or a row number of split files."""

    user: str
    item: str
    time: float


class Stream(NamedTuple):
    """The newest events in order of time, and the catalogue.

    Attributes:
      config: the config for the past, with the directory of its files.
      events: the events that follow it.
      texts, titles: of all items, by id.
    """

    config: Any
    events: list[StreamEvent]
    texts: dict[str, str]
    titles: dict[str, str]


def divide(config: Any, folder: Path, fraction: float) -> Stream:
    """Writes the past of a data set as Parquet files.

    Items without an event in the past are not in its catalogue.

    Args:
      config: a config whose data have times, or are split files in order of time.
      folder: a directory for the files.
      fraction: newest fraction of the events, which becomes the stream.

    Raises:
      UserError: the events have no times, or cannot be read.
    """
    if config.data.split == "fixed":
        data = load_data(config)
        events, items = split_file_events(data), data.items
    else:
        events, items = dated_events(config)
    start = len(events) - round(fraction * len(events))
    past, newest = events[:start], events[start:]
    item = config.data.item
    folder.mkdir(parents=True, exist_ok=True)
    past.write_parquet(folder / f"{PREFIX}.inter.parquet")
    texts = items.select(pl.all().cast(pl.String).fill_null(""))
    known = texts.filter(pl.col(item).is_in(past[item].unique().implode()))
    known.write_parquet(folder / f"{PREFIX}.item.parquet")
    rendered = []
    for key in ("template", "title"):
        parsed = parse_template(config.text[key], texts.columns, f"text.{key}")
        values = [fill_template(parsed, row) for row in texts.iter_rows(named=True)]
        rendered.append(dict(zip(texts[item], values, strict=True)))
    stream = [StreamEvent(*row) for row in newest.iter_rows()]
    return Stream(past_config(config, folder), stream, *rendered)


def dated_events(config: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns users, items and times of all events in order, and the item table."""
    data = config.data
    if not data.time:
        raise UserError("data.time: a stream needs times; name their column")
    reader = Reader(config, locate_data(data.source))
    events, items = reader.events()
    users = np.repeat(np.arange(len(events.user_ids)), np.diff(events.bounds))
    order = np.argsort(events.times, kind="stable")
    ids = items[data.item].cast(pl.String).to_numpy()
    names = np.array([str(user) for user in events.user_ids])
    columns = {
        USER: names[users[order]],
        data.item: ids[events.items[order]],
        TIME: events.times[order],
    }
    return pl.DataFrame(columns), items


def split_file_events(data: Data) -> pl.DataFrame:
    """Returns the events of split files whose rows are in order of time.

    The time of a target is the number of its row. The history of a user's first row
    comes just before; other histories repeat earlier events.
    """
    rows: list[tuple[str, str, float]] = []
    known: set[int] = set()
    number = 0
    for examples in (data.train, data.valid, data.test):
        for example, user in enumerate(examples.users_R.tolist()):
            number += 1
            history = [] if user in known else examples.history(example).tolist()
            known.add(user)
            items = [*history, int(examples.targets_R[example])]
            for position, item in enumerate(items, 1):
                time = number - 1 + position / len(items)
                name = str(data.item_ids[item])
                rows.append((str(data.user_ids[user]), name, time))
    schema = {USER: pl.String, data.items.columns[0]: pl.String, TIME: pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def past_config(config: Any, folder: Path) -> Any:
    """Returns the config of a run on the past, which holds the last events out."""
    own = config.copy_and_resolve_references().unlock()
    own.data.update(
        source=str(folder),
        format="parquet",
        file_prefix=PREFIX,
        split="leave_one_out",
        user=USER,
        time=TIME,
        rating="",
        min_rating=0.0,
        user_table=False,
        user_key="",  # the ids are hashed already
        k_core=0,
    )
    own.eval.like_threshold = 0.0
    own.report.save_model = True
    return own.lock()
