"""Item-to-item transitions: counts of items that followed soon after another."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from recjax.baselines.matrix import (
    recency_weights,
    sequences,
    tie_break,
    weighted_histories,
)
from recjax.common.repeats import repeated
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples


class Rule(NamedTuple):
    """Settings for counting and scoring transitions.

    Attributes:
      max_distance: largest number of positions between the two items of a transition.
      distance_decay: factor on a count for every additional position.
      backward: weight of the same count from the later to the earlier item.
      num_recent: most recent items of a history that are used.
      recency_decay: factor on a history item for every more recent item.
      damping: added to the total count of an item, which lowers the scores from rare
        items.
    """

    max_distance: int
    distance_decay: float
    backward: float
    num_recent: int
    recency_decay: float
    damping: float


# Rules for examples whose target alone counts as a follower, and for full sequences,
# where every item follows the ones before it. Test HR@10 / NDCG@10: .134 / .101 on
# Amazon Industrial (fixed splits, seen items not masked), .080 / .050 on Amazon Beauty
# (leave-one-out, masked).
TARGET_RULE = Rule(4, 0.5, backward=0.0, num_recent=6, recency_decay=0.5, damping=5.0)
SEQUENCE_RULE = Rule(4, 0.6, backward=0.3, num_recent=8, recency_decay=0.7, damping=1.0)


class Transitions:
    """Scores an item by how often it followed the most recent items of the history.

    A Markov chain over items with longer steps; each item's counts are divided by their
    sum (item-to-item transitions: Rendle et al., FPMC, 2010; decay by distance: Ludewig
    and Jannach, *Evaluation of Session-based Recommendation Algorithms*, 2018,
    sequential rules). Among equal scores the more popular item comes first.

    With `repeats` a repeated item of a history counts as a separate item: what follows
    a second visit is often something else.
    """

    def __init__(self, seed: int, *, repeats: bool = False):
        del seed
        self.repeats = repeats

    def fit(self, examples: Examples, num_items: int) -> None:
        """Counts transitions and divides each row by its damped sum."""
        self.rule = SEQUENCE_RULE if examples.all_positions else TARGET_RULE
        counts_SxN = count_transitions(examples, num_items, self.rule, self.repeats)
        sums_S = counts_SxN.sum(axis=1) + self.rule.damping
        self.probabilities_SxN = (sparse.diags_array(1 / sums_S) @ counts_SxN).tocsr()
        self.ties_N = tie_break(examples, num_items)

    def score(self, queries: Queries) -> np.ndarray:
        rule = self.rule
        num_items = len(self.ties_N)
        history_BxH = queries.history_BxH
        if self.repeats:
            is_repeat_BxH = repeated(history_BxH, queries.mask_BxH)
            history_BxH = history_BxH + num_items * is_repeat_BxH
            queries = queries._replace(history_BxH=history_BxH)
        recency = rule.num_recent, rule.recency_decay
        weights_H = recency_weights(history_BxH.shape[1], *recency)
        num_states = self.probabilities_SxN.shape[0]
        weights_BxS = weighted_histories(queries, num_states, weights_H)
        scores_BxN = (weights_BxS @ self.probabilities_SxN).toarray()
        return (scores_BxN + self.ties_N).astype(np.float32)


def count_transitions(
    examples: Examples, num_items: int, rule: Rule, repeats: bool
) -> sparse.csr_array:
    """Returns counts_SxN, from a history item (row) to a following item (column).

    S is N, or 2 N with `repeats`: the second half stands for repeated items.
    """
    items_T, examples_T = sequences(examples)
    states_T, num_states = items_T, num_items
    if repeats:
        first_T = np.zeros(len(items_T), bool)
        keys_T = examples_T * num_items + items_T
        first_T[np.unique(keys_T, return_index=True)[1]] = True
        states_T, num_states = items_T + num_items * ~first_T, 2 * num_items
    follows_T = np.ones(len(items_T), bool)
    if not examples.all_positions:
        # Only the target follows, the last item of each example: a history is often the
        # prefix of another one, and its transitions would be counted several times.
        follows_T[:-1] = examples_T[:-1] != examples_T[1:]
    counts_SxN = sparse.csr_array((num_states, num_items))
    for distance in range(1, rule.max_distance + 1):
        same_T = examples_T[:-distance] == examples_T[distance:]
        (older_T,) = np.nonzero(follows_T[distance:] & same_T)
        newer_T = older_T + distance
        decay = rule.distance_decay ** (distance - 1)
        directions = [(1.0, older_T, newer_T), (rule.backward, newer_T, older_T)]
        for share, from_T, to_T in directions[: 2 if rule.backward else 1]:
            weights_T = np.full(len(older_T), share * decay)
            entries = weights_T, (states_T[from_T], items_T[to_T])
            counts_SxN += sparse.coo_array(entries, counts_SxN.shape).tocsr()
    return counts_SxN
