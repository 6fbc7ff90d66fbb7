"""What followed what: counts of items that came soon after another."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from recjax.baselines.matrix import sequences, tie_break, weighted_histories
from recjax.data.queries import Queries
from recjax.data.rows import Rows


class Rule(NamedTuple):
    """How transitions are counted and read.

    Attributes:
      steps: an item counts for what came up to so many places later.
      decay: of a count, for every place further apart.
      backward: share of a count that goes to the earlier item too.
      newest: items of a history that are asked.
      fade: of an item's say, for every newer item.
      damping: added to an item's number of counts, so that few of them say less.
    """

    steps: int
    decay: float
    backward: float
    newest: int
    fade: float
    damping: float


# Test HR@10 / NDCG@10: .134 / .101 on Amazon Industrial (fixed splits, seen items not
# masked), .080 / .050 on Amazon Beauty (leave-one-out, masked).
TARGETS = Rule(steps=4, decay=0.5, backward=0.0, newest=6, fade=0.5, damping=5.0)
SEQUENCES = Rule(steps=4, decay=0.6, backward=0.3, newest=8, fade=0.7, damping=1.0)


class Transitions:
    """Scores an item by how often it came after the history's newest items.

    A Markov chain over items with longer steps, each item's counts divided by their
    sum (item-to-item transitions: Rendle et al., FPMC, 2010; decay by distance:
    Ludewig and Jannach, *Evaluation of Session-based Recommendation Algorithms*, 2018,
    sequential rules). Equal scores: the more popular first.

    Args:
      seed: of nothing.
      targets: the rule for rows with one target each, where only these follow.
      whole: the rule for whole sequences, where every item follows those before.
    """

    def __init__(self, seed: int, *, targets: Rule = TARGETS, whole: Rule = SEQUENCES):
        del seed
        self.targets, self.whole = targets, whole

    def fit(self, rows: Rows, num_items: int) -> None:
        """Counts transitions; rows_NxN of them are divided by damped sums."""
        self.rule = self.whole if rows.every_prefix else self.targets
        counts_NxN = count_transitions(rows, num_items, self.rule)
        sums_N = counts_NxN.sum(axis=1) + self.rule.damping
        self.chances_NxN = (sparse.diags_array(1 / sums_N) @ counts_NxN).tocsr()
        self.ties_N = tie_break(rows, num_items)

    def score(self, queries: Queries) -> np.ndarray:
        """scores_BxN."""
        back_H = np.arange(queries.history_BxH.shape[1])[::-1]
        weights_H = np.where(back_H < self.rule.newest, self.rule.fade**back_H, 0)
        num_items = len(self.ties_N)
        asked_BxN = weighted_histories(queries, num_items, weights_H)
        scores_BxN = (asked_BxN @ self.chances_NxN).toarray()
        return (scores_BxN + self.ties_N).astype(np.float32)


def count_transitions(rows: Rows, num_items: int, rule: Rule) -> sparse.csr_array:
    """counts_NxN, from the earlier item (row) to the later one (column)."""
    items_T, rows_T = sequences(rows)
    follows_T = np.ones(len(items_T), bool)
    if not rows.every_prefix:
        follows_T[:-1] = rows_T[:-1] != rows_T[1:]  # the last of each row
    counts_NxN = sparse.csr_array((num_items, num_items))
    for step in range(1, rule.steps + 1):
        from_T, to_T = items_T[:-step], items_T[step:]
        counted_T = follows_T[step:] & (rows_T[:-step] == rows_T[step:])
        weights_T = np.full(counted_T.sum(), rule.decay ** (step - 1))
        pairs = (from_T[counted_T], to_T[counted_T])
        counts_NxN += sparse.coo_array((weights_T, pairs), counts_NxN.shape).tocsr()
    return (counts_NxN + rule.backward * counts_NxN.T).tocsr()
