"""The arrays of training and evaluation batches, and what scores a batch."""

from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from recjax.data.text.packing import Items


class Batch(NamedTuple):
    """B users. `history_BxH` are indices into `items`, `targets_P` into candidates.

    Attributes:
      hidden_BxH: items that the user tower may not see; None where it sees all.
      position_P: b * H + h where the user tower answers for the target; -1 is padding.
      label_P: 1 where the target was liked, else 0; None where ratings do not count.
      examples_B: training row of each user; -1 where a place only fills the batch.
    """

    history_BxH: np.ndarray
    mask_BxH: np.ndarray
    hidden_BxH: np.ndarray | None
    targets_P: np.ndarray
    position_P: np.ndarray
    label_P: np.ndarray | None
    examples_B: np.ndarray | None
    items: Items | None


class Queries(NamedTuple):
    """B users to rank for; all indices are catalogue rows.

    Attributes:
      seen_BxS: items that may not be ranked, each once; -1 is padding.
      examples_B: the row that asks; -1 where it only fills the batch.
      sampled_BxC: the only candidates that the target is compared with, where they are
        drawn; -1 is padding.
      baseline_scores_BxMxN: baselines' scores, where the model has such memories.
    """

    history_BxH: np.ndarray
    mask_BxH: np.ndarray
    seen_BxS: np.ndarray
    targets_B: np.ndarray
    examples_B: np.ndarray
    sampled_BxC: np.ndarray | None = None
    baseline_scores_BxMxN: np.ndarray | None = None


class Scorer(Protocol):
    """Scores all items of the catalogue for a batch of queries."""

    def score(self, queries: Queries) -> np.ndarray | jnp.ndarray:
        """Returns finite scores_BxN; seen items are masked afterwards."""
