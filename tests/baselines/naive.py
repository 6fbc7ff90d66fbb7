"""Dense arrays, filled one entry at a time, that the baselines are compared with."""

import numpy as np


def interactions(examples, num_items):
    """Users by items, one where an example of the user has the item."""
    matrix = np.zeros((examples.users_R.max() + 1, num_items))
    for i in range(len(examples)):
        for item in examples.sequence(i):
            matrix[examples.users_R[i], item] = 1
    return matrix


def histories(batches):
    """The history of every query, oldest item first; padding has an empty one."""
    return [
        queries.history_BxH[b][queries.mask_BxH[b]]
        for queries in batches
        for b in range(len(queries.examples_B))
    ]


def history_matrix(batches, num_items):
    """Queries by items, one where a history has the item."""
    matrix = np.zeros((len(histories(batches)), num_items))
    for row, history in enumerate(histories(batches)):
        matrix[row, history] = 1
    return matrix


def score(baseline, batches):
    """Returns the scores of all queries, over the batches."""
    return np.concatenate([np.asarray(baseline.score(queries)) for queries in batches])


def tie_break(examples, num_items):
    """A thousandth of an item's share of the events."""
    share = np.zeros(num_items)
    for item in examples.events():
        share[item] += 1 / len(examples.events())
    return 0.001 * share
