"""Checks that the contents of a model directory are complete and fit each other."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.inference.inputs import show
from recjax.inference.parts import (
    ADDED,
    COPY,
    CURSOR,
    EVENTS,
    HISTORY_SCHEMA,
    ITEM,
    ITEMS,
    STATE,
    STORE,
    TIMES,
    TIMES_SCHEMA,
    TRAINED,
    UNTRAINED,
    USER,
    ModelParts,
    make_item_table,
)

LIBRARY = "recjax"
MAX_SEQUENCE = 2**63 - 1  # of an event, in SQLite


def check_config(content: dict[str, Any], path: Path, supported_format: int) -> None:
    """Checks `config.json`, except for the config of the run.

    Args:
      content: of the file.
      path: of the file, for errors.
      supported_format: the format that this version reads.

    Raises:
      UserError: another library or version wrote it, or a value is of a wrong type.
    """
    if content.get("library_name") != LIBRARY:
        found = content.get("library_name")
        raise UserError(
            f"{path}: library_name is {show(found)}, and only models of "
            f"{LIBRARY!r} can be loaded"
        )
    if content.get("format") != supported_format:
        raise UserError(
            f"{path}: is of format {show(content.get('format'))}, and this version "
            f"of recjax reads {supported_format}; use the version that wrote it"
        )
    for key in ("about", "fusion", "run"):
        if not isinstance(content.get(key), dict):
            raise UserError(f"{path}: {key} is not a JSON object; {COPY}")
    # What was read must be something that can be written again.
    try:
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as e:  # NaN, infinity, or half of a surrogate pair
        raise UserError(f"{path}: has a value that is no JSON ({e}); {COPY}") from None
    _check_about(content["about"], path)


def _check_about(about: dict[str, Any], path: Path) -> None:
    """Checks the facts that a service, a learner or the model card reads."""
    cursor = about.get(CURSOR, 0)
    if type(cursor) is not int or not 0 <= cursor <= MAX_SEQUENCE:
        raise UserError(
            f"{path}: about.cursor is {show(cursor)}, and not the sequence of an "
            f"event; {COPY}"
        )
    store = about.get(STORE, "0")
    if not isinstance(store, str) or not re.fullmatch("[0-9a-f]{1,64}", store):
        raise UserError(
            f"{path}: about.store is {show(store)}, and not the identity of a store; "
            f"{COPY}"
        )
    metrics = about.get("metrics", {})
    if not isinstance(metrics, dict) or not all(map(_is_interval, metrics.values())):
        raise UserError(
            f"{path}: about.metrics has other values than intervals; {COPY}"
        )


def _is_interval(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), int | float) for key in ("value", "low", "high")
    )


def check_items(items: pl.DataFrame, number: Any, path: Path) -> None:
    """Checks the item table.

    Args:
      items: the table.
      number: the number of items according to the config.
      path: of the table, for errors.

    Raises:
      UserError: it is not as `make_item_table` makes it, or of another length.
    """
    _check_schema(items, dict(make_item_table([], [], [], [], []).schema), path)
    if type(number) is not int or number != len(items) or not number:
        raise UserError(
            f"{path}: has {len(items):,} items, and num_items is {show(number)}; {COPY}"
        )
    if items[ITEM].n_unique() != len(items):
        raise UserError(f"{path}: an id appears twice")
    if items[EVENTS].min() < 0:  # type: ignore[operator]
        raise UserError(f"{path}: has a negative number of events")
    if unknown := set(items[STATE].unique()) - {TRAINED, UNTRAINED, ADDED}:
        raise UserError(f"{path}: {show(min(unknown))} is not a state of an item")
    if not (items[STATE] == ADDED).is_sorted():
        raise UserError(f"{path}: an item that was added is before one that was not")


def check_histories(histories: pl.DataFrame, num_items: int, path: Path) -> None:
    """Checks the table of histories.

    Raises:
      UserError: a column is missing, a user appears twice, or a history has an item
        that is not in the catalogue, or no time of an event.
    """
    has_times = TIMES in histories.columns
    schema = HISTORY_SCHEMA | (TIMES_SCHEMA if has_times else {})
    _check_schema(histories, schema, path)
    if histories[USER].n_unique() != len(histories):
        raise UserError(f"{path}: a user appears twice")
    lists = histories[ITEMS]
    rows = lists.filter(lists.list.len() > 0).explode()
    if rows.null_count() or not rows.is_between(0, num_items - 1).all():
        raise UserError(f"{path}: has items out of the catalogue")
    if has_times and (lists.list.len() != histories[TIMES].list.len()).any():
        raise UserError(f"{path}: a history has another number of times than items")


def _check_schema(table: pl.DataFrame, schema: dict[str, Any], path: Path) -> None:
    """Checks names, order and types of columns, and that no value is missing."""
    if missing := [name for name in schema if name not in table.columns]:
        raise UserError(f"{path}: no column {', '.join(missing)}")
    if list(table.schema.items()) != list(schema.items()):
        found, wanted = (
            ", ".join(f"{name} {kind}" for name, kind in x.items())
            for x in (table.schema, schema)
        )
        raise UserError(f"{path}: its columns are {found} instead of {wanted}")
    for name in schema:
        if table[name].null_count():
            raise UserError(f"{path}: the column {name} has missing values")


def check_vectors(parts: ModelParts, path: Path) -> None:
    """Checks that there are a vector and a bias of every item, and of which shape.

    Raises:
      UserError: there are not, or an array has another number of dimensions.
    """
    vectors = vars(parts.vectors)
    for name, array in vectors.items():
        dimensions = 1 if name == "bias_N" else 2
        if array.ndim != dimensions:
            raise UserError(
                f"{path}: {name} has {array.ndim} dimensions instead of {dimensions}"
            )
    sizes = {name: len(array) for name, array in vectors.items()}
    if {*sizes.values()} != {parts.num_items}:
        described = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise UserError(
            f"{path}: numbers of items differ: items {parts.num_items:,}, {described}"
        )


def check_finite(parts: ModelParts, folder: Path) -> None:
    """Checks parameters and vectors.

    Raises:
      UserError: a value is not finite.
    """
    for name, array in {**parts.params, **vars(parts.vectors)}.items():
        if not np.isfinite(array).all():
            raise UserError(f"{folder}: {name} has values that are not finite")
