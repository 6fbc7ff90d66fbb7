"""Losses by name."""

import functools
from collections.abc import Callable
from typing import Any

from recjax.losses.base import Loss
from recjax.losses.bce import bce, gbce_beta, rating
from recjax.losses.softmax import softmax


def _make_bce(config: Any, beta: float = 1.0) -> Loss:
    return functools.partial(
        bce, num_negatives=config.negatives_per_positive, beta=beta, chunk=config.chunk
    )


RATING = "rating"  # the loss of likes and dislikes


def learns_likes(config: Any) -> bool:
    """Returns whether a model is trained for likes, by `config.loss`."""
    return RATING in (config.name, *config.auxiliary)


# Called with `config.loss` and N.
LOSSES: dict[str, Callable[[Any, int], Loss]] = {
    "softmax": lambda config, num_items: functools.partial(
        softmax, smoothing=config.smoothing, chunk=config.chunk
    ),
    "bce": lambda config, num_items: _make_bce(config),
    "gbce": lambda config, num_items: _make_bce(
        config, gbce_beta(config.negatives_per_positive, config.gbce_t, num_items)
    ),
    RATING: lambda config, num_items: rating,
}
