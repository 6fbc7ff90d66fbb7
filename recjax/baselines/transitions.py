"""What followed what: counts of items that came soon after another."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from recjax.baselines.matrix import (
    fading_weights,
    sequences,
    tie_break,
    weighted_histories,
)
from recjax.common.repeats import repeated
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples


class Rule(NamedTuple):
    """How transitions are counted and read.

    Attributes:
      steps: an item counts for what came up to so many places later.
      decay: of a count, for every place further apart.
      backward: share of a count that goes to the earlier item too.
      newest: items of a history that are asked.
      fade: of an item's say, for every newer item.
      damping: added to an item's number of counts, so that few of them say less.
      repeats: whether an item that a history had before counts as another item there:
        what follows the second time is often something else.
    """

    steps: int
    decay: float
    backward: float
    newest: int
    fade: float
    damping: float
    repeats: bool = False


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

    def fit(self, rows: Examples, num_items: int) -> None:
        """Counts transitions; rows_SxN of them are divided by damped sums."""
        self.rule = self.whole if rows.all_positions else self.targets
        counts_SxN = count_transitions(rows, num_items, self.rule)
        sums_S = counts_SxN.sum(axis=1) + self.rule.damping
        self.chances_SxN = (sparse.diags_array(1 / sums_S) @ counts_SxN).tocsr()
        self.ties_N = tie_break(rows, num_items)

    def score(self, queries: Queries) -> np.ndarray:
        """scores_BxN."""
        q, num_items = queries, len(self.ties_N)
        length, rule = q.history_BxH.shape[1], self.rule
        weights_H = fading_weights(length, rule.newest, rule.fade)
        if rule.repeats:
            is_repeat_BxH = repeated(q.history_BxH, q.mask_BxH)
            q = q._replace(history_BxH=q.history_BxH + num_items * is_repeat_BxH)
        asked_BxS = weighted_histories(q, self.chances_SxN.shape[0], weights_H)
        scores_BxN = (asked_BxS @ self.chances_SxN).toarray()
        return (scores_BxN + self.ties_N).astype(np.float32)


def repeat_transitions(seed: int) -> Transitions:
    """Transitions where an item that came before counts as another item."""
    return Transitions(
        seed,
        targets=TARGETS._replace(repeats=True),
        whole=SEQUENCES._replace(repeats=True),
    )


def count_transitions(rows: Examples, num_items: int, rule: Rule) -> sparse.csr_array:
    """counts_SxN, from the item that is asked (row) to another (column).

    S is N, or 2 N where `rule.repeats`: the second half is of items that came before.
    """
    items_T, rows_T = sequences(rows)
    asked_T, num_asked = items_T, num_items
    if rule.repeats:
        first_T = np.zeros(len(items_T), bool)
        first_T[np.unique(rows_T * num_items + items_T, return_index=True)[1]] = True
        asked_T, num_asked = items_T + num_items * ~first_T, 2 * num_items
    follows_T = np.ones(len(items_T), bool)
    if not rows.all_positions:
        follows_T[:-1] = rows_T[:-1] != rows_T[1:]  # the last of each row
    counts_SxN = sparse.csr_array((num_asked, num_items))
    for step in range(1, rule.steps + 1):
        counted_T = follows_T[step:] & (rows_T[:-step] == rows_T[step:])
        weights_T = np.full(counted_T.sum(), rule.decay ** (step - 1))
        (older_T,) = np.nonzero(counted_T)
        newer_T = older_T + step
        directions = [(1.0, older_T, newer_T), (rule.backward, newer_T, older_T)]
        for share, from_T, to_T in directions[: 2 if rule.backward else 1]:
            entries = share * weights_T, (asked_T[from_T], items_T[to_T])
            counts_SxN += sparse.coo_array(entries, counts_SxN.shape).tocsr()
    return counts_SxN
