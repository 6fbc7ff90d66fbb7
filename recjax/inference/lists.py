"""Tables of recommended items, and the most popular items."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recjax.inference.parts import EVENTS, ITEM, TITLE

FROM_MODEL, FROM_POPULARITY = "model", "popularity"  # where a list comes from


def list_frame(
    items: pl.DataFrame, queries: Any, rows: Any, scores: Any, source: str
) -> pl.DataFrame:
    """Returns the list of one query as a table.

    Args:
      items: the item table.
      queries: the number of the query, once per row.
      rows: item indices, best first.
      scores: their scores.
      source: what made the list.
    """
    chosen = np.asarray(rows, np.int64)
    size = len(chosen)
    return pl.DataFrame(
        {
            "query": np.asarray(queries, np.int64),
            "rank": np.arange(1, size + 1),
            "item": items[ITEM].gather(chosen),
            "title": items[TITLE].gather(chosen),
            "score": np.asarray(scores, np.float32),
            "source": pl.Series([source] * size, dtype=pl.String),
        }
    )


def neighbour_frame(
    items: pl.DataFrame, label: str, name: str, rows: Any, cosines: Sequence[float]
) -> pl.DataFrame:
    """Returns the nearest items of an item, or of a text, as a table.

    Args:
      items: the item table.
      label: column of the name.
      name: the item, or the text.
      rows: indices of its neighbours, nearest first.
      cosines: their cosines.
    """
    size = len(rows)
    return pl.DataFrame(
        {
            label: [name] * size,
            "rank": np.arange(1, size + 1),
            "neighbour": items[ITEM].gather(rows),
            "title": items[TITLE].gather(rows),
            "cosine": cosines,
        }
    )


def most_popular(
    items: pl.DataFrame, k: int, allowed_N: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the most popular items and their shares of all training events.

    Args:
      items: the item table.
      k: number of items.
      allowed_N: the items to choose from; None is all.
    """
    events_N = items[EVENTS].to_numpy().astype(np.float64)
    candidates = np.arange(len(events_N))
    if allowed_N is not None:
        candidates = candidates[allowed_N]
    best = candidates[np.argsort(-events_N[candidates], kind="stable")][:k]
    return best, events_N[best] / max(events_N.sum(), 1)
