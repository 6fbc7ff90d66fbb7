"""The arrays of training and evaluation batches, and the interface of a scorer."""

from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from recjax.data.text.packing import Items


class Batch(NamedTuple):
    """A training batch of B windows, with P targets altogether.

    Histories are padded on the left; -1 is padding in `position_P` and `examples_B`.
    If the candidates are the whole catalogue, `targets_P` are item indices. Likes are
    those of `likes`.
    """

    history_BxH: np.ndarray  # indices into `items`; item indices if that is None
    mask_BxH: np.ndarray  # False at padding
    hidden_BxH: np.ndarray | None  # items that the user tower may not see (BERT4Rec)
    targets_P: np.ndarray  # index of each target among the candidates, see `items`
    position_P: np.ndarray  # b * H + h where the user tower predicts the target
    label_P: np.ndarray | None  # whether targets are liked; None without ratings
    examples_B: np.ndarray | None  # training examples; None on the devices
    items: Items | None  # distinct items; None if a step encodes all items
    liked_BxH: np.ndarray | None = None  # of histories; None without ratings
    times_BxH: np.ndarray | None = None  # see `pad_times`; None if they are not read


class Queries(NamedTuple):
    """An evaluation batch: B users to rank the catalogue for.

    Histories are padded on the left; -1 is padding in all indices but `targets_B`.
    """

    history_BxH: np.ndarray  # item indices, oldest first
    mask_BxH: np.ndarray  # False at padding
    seen_BxS: np.ndarray  # item indices that are no candidates, each once
    targets_B: np.ndarray  # item indices; 0 at padding
    examples_B: np.ndarray  # index of each query's example
    sampled_BxC: np.ndarray | None = None  # candidates; None if all items are
    # Scores of the M baselines to add to the model's; None without score fusion.
    baseline_scores_BxMxN: np.ndarray | None = None
    # As in `Batch`; None if the user tower reads no ratings, or no times.
    liked_BxH: np.ndarray | None = None
    times_BxH: np.ndarray | None = None


def likes(ratings: np.ndarray, threshold: float) -> np.ndarray:
    """Returns 1 for a rating of at least `threshold`, 0 below and -1 if unknown."""
    return np.where(np.isnan(ratings), -1, ratings >= threshold).astype(np.int32)


class Scorer(Protocol):
    """Scores all items of the catalogue for a batch of queries."""

    def score(self, queries: Queries) -> np.ndarray | jnp.ndarray:
        """Returns finite scores_BxN; seen items are masked afterwards."""
