"""What a loss receives and returns."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class LossInputs(NamedTuple):
    """What a loss compares; the score of a candidate is `query . candidate + bias`.

    Attributes:
      queries_PxD: what is scored against the candidates.
      candidates_UxD, bias_U: the candidates.
      targets_P: index of each target among the candidates.
      mask_P: which targets count.
      log_weight_U: log w, the weight of a candidate as a negative; -inf keeps it out.
        Where item u is c_u times a target of the batch, or drawn c_u times, w_u is c_u
        or, logQ-corrected, c_u / E[c_u] (Bengio and Senecal, 2008; Yi et al., 2019).
      label_P: 1 where the target was liked, else 0; None where ratings do not count.
    """

    queries_PxD: jax.Array
    candidates_UxD: jax.Array
    bias_U: jax.Array
    targets_P: jax.Array
    mask_P: jax.Array
    log_weight_U: jax.Array
    label_P: jax.Array | None = None

    def clean(self) -> "LossInputs":
        """In float32, with zeros where nothing counts, so that no NaN comes back."""
        queries_PxD = self.queries_PxD.astype(jnp.float32)
        return self._replace(
            queries_PxD=jnp.where(self.mask_P[:, None], queries_PxD, 0),
            candidates_UxD=self.candidates_UxD.astype(jnp.float32),
        )

    def target_scores(self) -> jax.Array:
        """scores_P of the targets."""
        own_PxD = self.candidates_UxD[self.targets_P]
        return (self.queries_PxD * own_PxD).sum(-1) + self.bias_U[self.targets_P]


Loss = Callable[[LossInputs], jax.Array]
