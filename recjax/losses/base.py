"""Inputs of a loss, and computations that several losses share."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class LossInputs(NamedTuple):
    """Queries and candidates; a candidate's score is `query . candidate + bias`.

    Attributes:
      targets_P: index of each target among the candidates.
      mask_P: True for targets, False for padding.
      log_weight_U: log w, the weight of a candidate as a negative; -inf excludes it.
        If item u occurs c_u times among the targets of the batch and the sampled items,
        w_u is c_u or, with logQ correction, c_u / E[c_u] (Bengio and Senecal, 2008; Yi
        et al., 2019).
      label_P: 1 if the target was liked, 0 if not, -1 if that is unknown; None for
        losses that ignore ratings.
    """

    queries_PxD: Array
    candidates_UxD: Array
    bias_U: Array
    targets_P: Array
    mask_P: Array
    log_weight_U: Array
    label_P: Array | None = None

    def clean(self) -> "LossInputs":
        """Returns the inputs in float32, with zeros for the queries of padding."""
        # Masking the loss is not enough if a padded query is NaN: its gradient is NaN
        # times zero, which is NaN.
        queries_PxD = self.queries_PxD.astype(jnp.float32)
        return self._replace(
            queries_PxD=jnp.where(self.mask_P[:, None], queries_PxD, 0),
            candidates_UxD=self.candidates_UxD.astype(jnp.float32),
        )

    def target_scores(self) -> Array:
        """Scores of the targets: scores_P."""
        own_PxD = self.candidates_UxD[self.targets_P]
        return (self.queries_PxD * own_PxD).sum(-1) + self.bias_U[self.targets_P]


Loss = Callable[[LossInputs], Array]


def is_target(targets_P: Array, start: Array | int, size: int) -> Array:
    """Whether each of C = `size` candidates from `start` on is the target: bool_PxC."""
    return jnp.arange(size)[None] == (targets_P - start)[:, None]
