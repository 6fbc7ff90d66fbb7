"""Rows -> padded batches of users to rank the catalogue for."""

from collections.abc import Iterator

import numpy as np

from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples
from recjax.data.padding import fill_left


def make_queries(
    rows: Examples,
    *,
    batch_size: int,
    history_length: int,
    mask_seen: bool,
    by_length: bool = False,
    sampled_RxC: np.ndarray | None = None,
) -> Iterator[Queries]:
    """Rows in batches of B users.

    The user's whole history counts as seen, also what is older than
    `history_length` items; the target itself never does.

    Args:
      rows: of a split.
      batch_size: B; the last batch is filled up.
      history_length: H, in items.
      mask_seen: whether what was seen may not be ranked.
      by_length: whether rows with short histories come first, in batches of a smaller
        H: a half, a quarter and so on, but not below four. Otherwise the rows come in
        order and the batches have one shape.
      sampled_RxC: see `draw_candidates`; None where all items are candidates.
    """
    whole_R = rows.lengths()
    order_R = np.argsort(whole_R, kind="stable") if by_length else np.arange(len(rows))
    longest = rows.most_seen()
    for start in range(0, len(rows), batch_size):
        chosen = order_R[start : start + batch_size]
        width, most = history_length, int(whole_R[chosen].max())
        while by_length and width >= 8 and most <= (half := -(-width // 2)):
            width = half
        whole = width == history_length or rows.past is not None
        num_seen = longest if whole else width
        q = Queries(
            np.zeros((batch_size, width), np.int32),
            np.zeros((batch_size, width), bool),
            np.full((batch_size, num_seen if mask_seen else 1), -1, np.int32),
            np.zeros(batch_size, np.int32),
            np.full(batch_size, -1, np.int32),
            None if sampled_RxC is None else sampled_RxC[_filled(chosen, batch_size)],
        )
        q.examples_B[: len(chosen)] = chosen
        q.targets_B[: len(chosen)] = rows.targets_R[chosen]
        for b, row in enumerate(chosen):
            history = rows.history(row)
            fill_left(q.history_BxH, q.mask_BxH, b, history[-width:])
            if mask_seen:
                seen = rows.seen(row)
                q.seen_BxS[b, : len(seen)] = seen
        yield q


def sample_candidates(
    rows: Examples, num_items: int, size: int, *, mask_seen: bool, seed: int
) -> np.ndarray:
    """sampled_RxC: for each row C items at random, without its target and what is seen.

    -1 where there are not as many. What such a ranking says can differ from the whole
    catalogue's, and reorder models (Krichene and Rendle, KDD 2020).
    """
    sampled_RxC = np.full((len(rows), size), -1, np.int32)
    rng = np.random.default_rng(seed)
    for row in range(len(rows)):
        out = rows.targets_R[row : row + 1]
        if mask_seen:
            out = np.append(out, rows.seen(row))
        most = min(size + len(out), num_items)
        items = rng.choice(num_items, most, replace=False)
        drawn = items[~np.isin(items, out)][:size]
        sampled_RxC[row, : len(drawn)] = drawn
    return sampled_RxC


def _filled(chosen: np.ndarray, size: int) -> np.ndarray:
    """Row numbers of a batch; the first row stands in for what only fills it."""
    return np.append(chosen, np.zeros(size - len(chosen), np.int64))
