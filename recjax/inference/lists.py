"""Tables of recommended and similar items, and the most popular items."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from recjax.inference.parts import EVENTS, ITEM, TITLE

FROM_MODEL, FROM_POPULARITY = "model", "popularity"  # where a list comes from
CHUNK = 64  # users whose scores of all items are in memory at a time


def chunks(rows: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """Yields histories in chunks of `CHUNK`."""
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


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


def nearest_items(
    items: pl.DataFrame,
    unit_NxD: np.ndarray,
    k: int,
    label: str,
    names: Sequence[str],
    queries: tuple[np.ndarray, np.ndarray],
) -> pl.DataFrame:
    """Returns the items with the most similar vectors, by cosine, as a table.

    Args:
      items: the item table.
      unit_NxD: the vectors of the items, of length 1.
      k: number of neighbours.
      label: column of the names.
      names: the name of each of U queries.
      queries: the vectors_UxD of the queries, of length 1; and own_U, the item that is
        not its own neighbour, or -1.
    """
    # The first table is empty, so that there are columns without queries too.
    frames = [_neighbour_frame(items, label, "", np.zeros(0, int), unit_NxD[:0, 0])]
    for name, vector_D, own in zip(names, *queries, strict=True):
        cosine_N = unit_NxD @ vector_D
        if own >= 0:
            cosine_N[own] = -np.inf
        size = min(k, len(items) - (own >= 0))
        best = np.argsort(-cosine_N, kind="stable")[:size]
        frames.append(_neighbour_frame(items, label, name, best, cosine_N[best]))
    return pl.concat(frames)


def _neighbour_frame(
    items: pl.DataFrame, label: str, name: str, rows: Any, cosines: np.ndarray
) -> pl.DataFrame:
    """Returns the neighbours of one query, nearest first."""
    size = len(rows)
    return pl.DataFrame(
        {
            label: pl.Series([name] * size, dtype=pl.String),
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
