"""What reads alike: cosines of pretrained text vectors, without any training."""

import numpy as np

from recjax.baselines.matrix import fading_weights, weighted_histories
from recjax.catalogue.whitening import whiten
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples

NEWEST, FADE = 8, 0.5  # items of a history that are asked; their say per newer item
POWER = 0.5  # of whitening: cosines of pretrained vectors are all large before
TEMPERATURE = 0.1  # cosines are divided by it


class TextSimilarity:
    """Scores an item by the cosines of its text's vector with those of the history.

    The mean over the history's newest items, of which the last one counts most.
    Vectors are half-way whitened over the catalogue (see `whitening.whiten`).

    Args:
      vectors_NxE: of the items' texts, by an encoder as it came.
    """

    def __init__(self, vectors_NxE: np.ndarray):
        white_NxE = whiten(vectors_NxE, POWER)
        norm_Nx1 = np.linalg.norm(white_NxE, axis=1, keepdims=True)
        self.unit_NxE = white_NxE / np.maximum(norm_Nx1, 1e-9)

    def fit(self, rows: Examples, num_items: int) -> None:
        """Nothing: no event is looked at."""

    def score(self, queries: Queries) -> np.ndarray:
        """scores_BxN: log chances of a softmax over the items, but for its sum."""
        weights_H = fading_weights(queries.history_BxH.shape[1], NEWEST, FADE)
        asked_BxN = weighted_histories(queries, len(self.unit_NxE), weights_H)
        total_B = np.maximum(asked_BxN.sum(axis=1), 1e-9)
        users_BxE = (asked_BxN @ self.unit_NxE) / total_B[:, None]
        scores_BxN = users_BxE @ self.unit_NxE.T / TEMPERATURE
        return np.asarray(scores_BxN, np.float32)
