"""Divides a data set in time: the past to train on, and the stream that follows it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.data.ingest.reader import Reader
from recjax.data.ingest.sources import locate_data
from recjax.data.ingest.tables import DAY
from recjax.data.text.template import fill_template, parse_template

PREFIX = "past"


class StreamEvent(NamedTuple):
    """An event of the stream; `day` counts from its first event."""

    user: str
    item: str
    time: float
    day: int


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
      config: a config whose data have times.
      folder: a directory for the files.
      fraction: newest fraction of the events, which becomes the stream.

    Raises:
      UserError: the events have no times, or cannot be read.
    """
    data = config.data
    if not data.time:
        raise UserError("data.time: a stream needs times; name their column")
    reader = Reader(config, locate_data(data.source))
    events, items = reader.events()
    size = len(events.items)
    users = np.repeat(np.arange(len(events.user_ids)), np.diff(events.bounds))
    order = np.argsort(events.times, kind="stable")
    ids = items[data.item].cast(pl.String).to_numpy()
    names = np.array([str(user) for user in events.user_ids])
    table = pl.DataFrame(
        {
            "user": names[users[order]],
            data.item: ids[events.items[order]],
            "time": events.times[order],
        }
    )
    start = size - round(fraction * size)
    past, newest = table[:start], table[start:]
    folder.mkdir(parents=True, exist_ok=True)
    past.write_parquet(folder / f"{PREFIX}.inter.parquet")
    texts = items.select(pl.all().cast(pl.String).fill_null(""))
    known = texts.filter(pl.col(data.item).is_in(past[data.item].unique().implode()))
    known.write_parquet(folder / f"{PREFIX}.item.parquet")
    first = newest["time"][0]
    stream = [
        StreamEvent(user, item, time, int((time - first) // DAY))
        for user, item, time in newest.iter_rows()
    ]
    rendered = []
    for key in ("template", "title"):
        parsed = parse_template(config.text[key], texts.columns, f"text.{key}")
        values = [fill_template(parsed, row) for row in texts.iter_rows(named=True)]
        rendered.append(dict(zip(texts[data.item], values, strict=True)))
    own = config.copy_and_resolve_references().unlock()
    own.data.update(
        source=str(folder),
        format="parquet",
        file_prefix=PREFIX,
        user="user",
        time="time",
        rating="",
        min_rating=0.0,
        user_table=False,
        user_key="",  # the ids are hashed already
        k_core=0,
    )
    own.eval.like_threshold = 0.0
    own.report.save_model = True
    return Stream(own.lock(), stream, *rendered)
