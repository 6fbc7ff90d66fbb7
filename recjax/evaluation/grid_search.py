"""Search for the numbers that validation chooses, such as the weights of baselines."""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

MAX_COMBINATIONS = 256  # more are not all tried
Numbers = tuple[float, ...]
Found = TypeVar("Found")


def grid_search(
    evaluate: Callable[[Sequence[Numbers]], Sequence[Found]],
    value_of: Callable[[Found], float],
    grid: Numbers,
    start: Numbers,
) -> tuple[Numbers, Found]:
    """Returns the numbers with the highest value, and what was evaluated for them.

    All combinations of the grid are tried if they are at most `MAX_COMBINATIONS`;
    otherwise one number is changed at a time, from `start` on, for as long as that is
    better. A number at an end of the grid is doubled for as long as that is better.
    Among equal values the first one wins.

    Args:
      evaluate: evaluates several choices of the numbers at once.
      value_of: the value of an evaluated choice.
      grid: the candidates of each number.
      start: the numbers from which a search in steps begins.
    """
    tries_all = len(grid) ** len(start) <= MAX_COMBINATIONS
    options = [*itertools.product(grid, repeat=len(start))]
    if not tries_all:
        options = [start, *one_changed(start, grid)]
    best = -np.inf
    while options:
        found = evaluate(options)
        values = [value_of(x) for x in found]
        index = int(np.argmax(values))
        if values[index] <= best:
            break
        chosen, result, best = options[index], found[index], values[index]
        options = beyond_grid(chosen, grid)
        if not tries_all:
            options += one_changed(chosen, grid)
    return chosen, result


def one_changed(chosen: Numbers, grid: Numbers) -> list[Numbers]:
    """Returns `chosen` with one number replaced by each other value of the grid."""
    return [
        (*chosen[:i], x, *chosen[i + 1 :])
        for i, number in enumerate(chosen)
        for x in grid
        if x != number
    ]


def beyond_grid(chosen: Numbers, grid: Numbers) -> list[Numbers]:
    """Returns `chosen` with each number at or beyond an end of the grid doubled."""
    ends = [
        i
        for i, x in enumerate(chosen)
        if (x >= max(grid) and x > 0) or (x <= min(grid) and x < 0)
    ]
    return [tuple(x * (1 + (i == end)) for i, x in enumerate(chosen)) for end in ends]
