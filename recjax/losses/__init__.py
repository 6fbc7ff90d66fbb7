"""Losses by name."""

import functools
from collections.abc import Callable
from typing import Any

from recjax.losses.base import Loss
from recjax.losses.bce import bce, gbce_beta, rating
from recjax.losses.softmax import softmax

# Made of `config.loss` and N.
LOSSES: dict[str, Callable[[Any, int], Loss]] = {
    "softmax": lambda c, num_items: functools.partial(
        softmax, smoothing=c.smoothing, chunk=c.chunk
    ),
    "bce": lambda c, num_items: functools.partial(
        bce, k=c.negatives_per_positive, chunk=c.chunk
    ),
    "gbce": lambda c, num_items: functools.partial(
        bce,
        k=c.negatives_per_positive,
        beta=gbce_beta(c.negatives_per_positive, c.gbce_t, num_items),
        chunk=c.chunk,
    ),
    "rating": lambda c, num_items: rating,
}
