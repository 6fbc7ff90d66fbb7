"""What the tests compare with: dense arrays, filled one by one."""

import numpy as np


def interactions(rows, num_items):
    """Users by items, one where a row of the user has the item."""
    matrix = np.zeros((rows.users_R.max() + 1, num_items))
    for row in range(len(rows)):
        for item in rows.sequence(row):
            matrix[rows.users_R[row], item] = 1
    return matrix


def shown(batches):
    """What every query shows of its history, oldest first; nothing where it fills."""
    return [
        queries.history_BxH[b][queries.mask_BxH[b]]
        for queries in batches
        for b in range(len(queries.examples_B))
    ]


def had(batches, num_items):
    """Queries by items, one where a history has the item."""
    matrix = np.zeros((len(shown(batches)), num_items))
    for row, history in enumerate(shown(batches)):
        matrix[row, history] = 1
    return matrix


def score(baseline, batches):
    """Scores of all queries, one batch after another."""
    return np.concatenate([np.asarray(baseline.score(queries)) for queries in batches])


def tie_break(rows, num_items):
    """A thousandth of an item's share of the events."""
    share = np.zeros(num_items)
    for item in rows.events():
        share[item] += 1 / len(rows.events())
    return 0.001 * share
