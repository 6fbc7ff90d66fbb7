"""Slow reference implementations with dense arrays, filled in loops."""

import numpy as np


def interactions(examples, num_items):
    """Returns users x items, one where an example of the user has the item."""
    matrix = np.zeros((examples.users_R.max() + 1, num_items))
    for row in range(len(examples)):
        for item in examples.sequence(row):
            matrix[examples.users_R[row], item] = 1
    return matrix


def histories(batches):
    """Returns the history of every query, oldest first, without padding."""
    return [
        queries.history_BxH[b][queries.mask_BxH[b]]
        for queries in batches
        for b in range(len(queries.examples_B))
    ]


def seen_items(batches, num_items):
    """Returns queries x items, one where the history has the item."""
    matrix = np.zeros((len(histories(batches)), num_items))
    for row, history in enumerate(histories(batches)):
        matrix[row, history] = 1
    return matrix


def score(baseline, batches):
    """Returns the scores of all queries, over the batches."""
    return np.concatenate([np.asarray(baseline.score(queries)) for queries in batches])


def tie_break(examples, num_items):
    """Returns a thousandth of each item's share of the events."""
    share = np.zeros(num_items)
    for item in examples.events():
        share[item] += 1 / len(examples.events())
    return 0.001 * share
