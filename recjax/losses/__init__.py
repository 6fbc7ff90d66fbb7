"""Losses by name."""

import functools
from collections.abc import Callable
from typing import Any

from recjax.losses.base import Loss
from recjax.losses.bce import bce, gbce_beta, rating
from recjax.losses.softmax import softmax


def _make_bce(config: Any, num_items: int) -> Loss:
    del num_items
    return functools.partial(
        bce, num_negatives=config.negatives_per_positive, chunk=config.chunk
    )


def _make_gbce(config: Any, num_items: int) -> Loss:
    num_negatives = config.negatives_per_positive
    beta = gbce_beta(num_negatives, config.gbce_t, num_items)
    return functools.partial(
        bce, num_negatives=num_negatives, beta=beta, chunk=config.chunk
    )


# Made of `config.loss` and N.
LOSSES: dict[str, Callable[[Any, int], Loss]] = {
    "softmax": lambda config, num_items: functools.partial(
        softmax, smoothing=config.smoothing, chunk=config.chunk
    ),
    "bce": _make_bce,
    "gbce": _make_gbce,
    "rating": lambda config, num_items: rating,
}
