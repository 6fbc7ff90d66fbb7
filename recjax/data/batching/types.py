"""The arrays of training and evaluation batches, and the protocol of a baseline."""

from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from recjax.data.text.packing import Items


class Batch(NamedTuple):
    """A training batch of B windows, with P targets altogether.

    Attributes:
      history_BxH: indices into `items`, or item indices where `items` is None.
      mask_BxH: False at padding, which is on the left.
      hidden_BxH: items that the user tower may not see (masked-item training); None
        where it sees all.
      targets_P: index of each target among the candidates: into `items`, or item
        indices where the candidates are the whole catalogue.
      position_P: b * H + h where the user tower predicts the target; -1 is padding.
      label_P: 1 where the target was liked, else 0; None where ratings do not count.
      examples_B: training example of each window; -1 is padding. None on the devices.
      items: the distinct items of the batch; None where a step encodes all items.
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
    """An evaluation batch: B users to rank the catalogue for.

    Attributes:
      history_BxH: item indices, oldest first.
      mask_BxH: False at padding, which is on the left.
      seen_BxS: item indices that must not be ranked, each once; -1 is padding.
      targets_B: item index of each target; 0 at padding.
      examples_B: index of the example that each query belongs to; -1 is padding.
      sampled_BxC: sampled candidates, the only items that the target is compared with;
        -1 is padding. None where all items are candidates.
      baseline_scores_BxMxN: scores of the M baselines that are fused with the model's;
        None without score fusion.
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
