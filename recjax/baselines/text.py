"""Text similarity: cosines of pretrained text vectors, without any training."""

import numpy as np

from recjax.baselines.matrix import recency_weights, weighted_histories
from recjax.common.vectors import unit_vectors
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples
from recjax.models.users.recency import DECAY

TEMPERATURE = 0.1  # divides the cosines


class TextSimilarity:
    """Scores an item by the cosines of its text vector with those of the history.

    The score is a weighted mean over the history, in which recent items weigh more.
    Vectors should be whitened over the catalogue: otherwise all cosines are large.
    """

    def __init__(self, vectors_NxE: np.ndarray):
        self.unit_NxE = unit_vectors(vectors_NxE)

    def fit(self, examples: Examples, num_items: int) -> None:
        """Does nothing: the scores depend on texts only."""

    def score(self, queries: Queries) -> np.ndarray:
        """Returns scores_BxN: logits of a softmax over the items."""
        length = queries.history_BxH.shape[1]
        weights_H = recency_weights(length, length, DECAY)
        weights_BxN = weighted_histories(queries, len(self.unit_NxE), weights_H)
        total_B = np.maximum(weights_BxN.sum(axis=1), 1e-9)
        users_BxE = (weights_BxN @ self.unit_NxE) / total_B[:, None]
        scores_BxN = users_BxE @ self.unit_NxE.T / TEMPERATURE
        return np.asarray(scores_BxN, np.float32)
