"""Evaluation batches: padded queries, and sampled candidates."""

from collections.abc import Iterator

import numpy as np

from recjax.data.batching.times import pad_times
from recjax.data.batching.types import Queries, likes
from recjax.data.dataset import Examples
from recjax.data.padding import pad_left, pad_to, shorten

MIN_WIDTH = 4  # even shorter batches would not save time


def make_queries(
    examples: Examples,
    *,
    batch_size: int,
    history_length: int,
    mask_seen: bool,
    by_length: bool = False,
    sampled_RxC: np.ndarray | None = None,
    like: float | None = None,
    with_times: bool = False,
) -> Iterator[Queries]:
    """Yields the examples in batches of B queries.

    With `mask_seen`, all items of the user's history are seen items, also those before
    the newest `history_length` ones. The target is never among them.

    Args:
      by_length: whether to start with the short histories, in batches of a smaller H:
        a half, a quarter and so on, down to `MIN_WIDTH`. Otherwise the examples are in
        order and all batches have one shape.
      sampled_RxC: see `sample_candidates`; None if all items are candidates.
      like: the lowest rating of a liked item; None if the model reads no ratings.
      with_times: whether batches have the times of the histories.
    """
    lengths_R = examples.lengths()
    order_R = np.arange(len(examples))
    if by_length:
        order_R = np.argsort(lengths_R, kind="stable")
    max_seen = examples.max_seen()  # one S for all batches: one shape to compile
    for start in range(0, len(examples), batch_size):
        chosen = order_R[start : start + batch_size]
        longest = int(lengths_R[chosen].max())
        width = history_length
        if by_length:
            width = shorten(width, longest, MIN_WIDTH)
        # A history that fits into a narrower batch has no seen items outside it, unless
        # items were removed from histories.
        untruncated = width < history_length and examples.seen_items is None
        num_seen = width if untruncated else max_seen
        seen_BxS = np.full((batch_size, num_seen if mask_seen else 1), -1, np.int32)
        for b, example in enumerate(chosen if mask_seen else ()):
            seen = examples.seen(example)
            seen_BxS[b, : len(seen)] = seen
        histories = [examples.history(example)[-width:] for example in chosen]
        yield Queries(
            *pad_left(histories, (batch_size, width)),
            seen_BxS,
            pad_to(examples.targets_R[chosen], batch_size, 0),
            pad_to(chosen, batch_size),
            # Padding may take any candidates: its ranks are dropped.
            None if sampled_RxC is None else sampled_RxC[pad_to(chosen, batch_size, 0)],
            liked_BxH=None
            if like is None
            else _liked(examples, chosen, (batch_size, width), like),
            times_BxH=pad_times(
                [examples.history_times(example)[-width:] for example in chosen],
                (batch_size, width),
            )
            if with_times
            else None,
        )


def _liked(
    examples: Examples, chosen: np.ndarray, shape: tuple[int, int], like: float
) -> np.ndarray:
    """Whether users liked the items of their histories: liked_BxH, see `likes`."""
    ratings = [examples.sequence_ratings(example)[:-1] for example in chosen]
    return pad_left([likes(x, like)[-shape[1] :] for x in ratings], shape)[0]


def sample_candidates(
    examples: Examples, num_items: int, size: int, *, mask_seen: bool, seed: int
) -> np.ndarray:
    """sampled_RxC: C random items for each example, without its target and seen items.

    -1 where fewer than C items are left. Metrics of sampled candidates can differ from
    those of the catalogue, and rank models differently (Krichene and Rendle, KDD 2020).
    """
    sampled_RxC = np.empty((len(examples), size), np.int32)
    rng = np.random.default_rng(seed)
    for i in range(len(examples)):
        excluded = examples.targets_R[i : i + 1]
        if mask_seen:
            excluded = np.append(excluded, examples.seen(i))
        # Enough draws that `size` remain after the excluded items are removed.
        num_draws = min(size + len(excluded), num_items)
        items = rng.choice(num_items, num_draws, replace=False)
        sampled_RxC[i] = pad_to(items[~np.isin(items, excluded)][:size], size)
    return sampled_RxC
