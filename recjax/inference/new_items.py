"""Reads the ids, texts and titles of new items from what a caller gives."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl
import polars.selectors as cs

from recjax.common.errors import UserError
from recjax.data.ingest.formats import join_lists
from recjax.data.text.template import fill_template, parse_template
from recjax.inference.frames import is_frame, to_polars
from recjax.inference.inputs import id_column, id_list, text_list


class NewItems(NamedTuple):
    """Items to add to a catalogue; the lists have the same order."""

    ids: list[str]
    texts: list[str]
    titles: list[str]


def read_items(items: Any, config: Any) -> NewItems:
    """Reads new items.

    Args:
      items: as in `Model.add_items`.
      config: the config of the run, which names the columns.

    Raises:
      UserError: a column, an id or a text is missing, or has another type.
    """
    column = config.data.item
    if isinstance(items, Mapping):
        named = {column: id_list(items.keys(), "items")}
        ids = id_column(pl.DataFrame(named, {column: pl.String}), column, "items")
        # A missing text is named below, with its id.
        given = ["" if text is None else text for text in items.values()]
        texts = titles = text_list(given, "items")
    elif is_frame(items):
        frame = to_polars(items, "items")
        ids = id_column(frame, column, "items")
        texts, titles = render(frame, config, "template", "title")
    else:
        raise UserError("items: give a table, or a dictionary of ids and texts")
    for name, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise UserError(f"items: {name!r} has no text")
    return NewItems(ids.to_list(), texts, titles)


def render(frame: pl.DataFrame, config: Any, *keys: str) -> list[list[str]]:
    """Fills templates with the rows of a table; lists are joined as in files.

    Args:
      frame: the table. Missing values are empty.
      config: the config of the run.
      keys: "template" or "title", in `config.text`.

    Returns:
      The texts of all rows, for every key.

    Raises:
      UserError: a column is missing, or holds neither texts nor numbers.
    """
    flat = join_lists(frame)
    left_out = [name for name in frame.columns if name not in flat.columns]
    unreadable = {name: str(frame[name].dtype) for name in left_out}
    templates = [
        parse_template(
            config.text[key], flat.columns, f"text.{key}", unreadable=unreadable
        )
        for key in keys
    ]
    texts = flat.with_columns(cs.float().fill_nan(None))
    texts = texts.select(pl.all().cast(pl.String).fill_null(""))
    return [
        [fill_template(parsed, row) for row in texts.iter_rows(named=True)]
        for parsed in templates
    ]
