"""Auxiliary losses with their parameters, and the weighted sum of all losses."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from recjax.common.vectors import unit_vectors
from recjax.losses import RATING, auxiliary
from recjax.losses.base import LossInputs
from recjax.losses.bce import rating

CATEGORY = "category"


class ForwardPass(NamedTuple):
    """What auxiliary losses read of a training step.

    Attributes:
      users_BxHxD: user vectors at all positions.
      encode_users: computes them again, with other dropout.
      vectors_UxD: vectors of the candidates, before the head.
      items_U: their item indices.
      history_BxH: indices of the histories among the candidates.
      compared: queries_PxD, candidates_UxD and bias_U of the head.
      category_N: category of every item; None without `category`.
      batch: the training batch.
    """

    users_BxHxD: Array
    encode_users: Callable[[], Array]
    vectors_UxD: Array
    items_U: Array
    history_BxH: Array
    compared: tuple[Array, Array, Array]
    category_N: Array | None
    batch: Any

    def visible_BxH(self) -> Array:
        """Whether the user tower sees an item at each position of the histories."""
        mask_BxH, hidden_BxH = self.batch.mask_BxH, self.batch.hidden_BxH
        return mask_BxH if hidden_BxH is None else mask_BxH & ~hidden_BxH

    def targets_BxH(self) -> Array:
        """Index among the candidates of the target at each position; -1 without one."""
        batch, shape = self.batch, self.batch.mask_BxH.shape
        size = shape[0] * shape[1]
        position_P = jnp.where(batch.position_P < 0, size, batch.position_P)
        targets_T = jnp.full(size, -1).at[position_P].set(batch.targets_P, mode="drop")
        return targets_T.reshape(shape)


class Objectives(nn.Module):
    """The auxiliary losses of a model, and the weights of all its losses.

    Attributes:
      names: keys of `OBJECTIVES`.
      weights: a weight for each; empty learns them, and that of the main loss.
      num_categories: number of categories.
      temperature: divides the cosines of the contrasts.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    num_categories: int
    temperature: float

    def setup(self) -> None:
        self.category = nn.Dense(self.num_categories)
        if not self.weights:
            shape = (1 + len(self.names),)
            self.log_variances = self.param(
                "log_variances", nn.initializers.zeros, shape
            )

    def init_params(self, users_BxHxD: Array) -> None:
        """Creates the parameters of the losses."""
        if CATEGORY in self.names:
            self.category(users_BxHxD)

    def __call__(self, forward: ForwardPass) -> dict[str, Array]:
        """Returns each loss by name, the mean over its examples."""
        return {name: OBJECTIVES[name](self, forward) for name in self.names}

    def combine(self, main: Array, others: Mapping[str, Array]) -> Array:
        """Returns the weighted sum of the main loss and of those of `__call__`.

        Learned weights are `exp(-s)` for each loss, and the sum has an added `s`, which
        starts at 0 (Kendall, Gal and Cipolla, 2018).
        """
        losses_J = jnp.stack([main, *(others[name] for name in self.names)])
        if self.weights:
            return losses_J @ jnp.array([1.0, *self.weights])
        return (jnp.exp(-self.log_variances) * losses_J + self.log_variances).sum()

    def draw(self, where_BxH: Array) -> tuple[Array, Array]:
        """Draws one position of each row where it is True: index_B, and mask_B.

        mask_B is False for rows without any.
        """
        key = self.make_rng("dropout")
        drawn_BxH = jax.random.uniform(key, where_BxH.shape)
        return jnp.where(where_BxH, drawn_BxH, -1).argmax(axis=1), where_BxH.any(axis=1)


def _category(own: Objectives, forward: ForwardPass) -> Array:
    batch, users_BxHxD = forward.batch, forward.users_BxHxD
    users_PxD = users_BxHxD.reshape(-1, users_BxHxD.shape[-1])[batch.position_P]
    assert forward.category_N is not None
    category_P = forward.category_N[forward.items_U[batch.targets_P]]
    logits_PxC = own.category(users_PxD)
    return auxiliary.category(logits_PxC, category_P, batch.position_P >= 0)


def _contrast(own: Objectives, forward: ForwardPass) -> Array:
    history_BxH, visible_BxH = forward.history_BxH, forward.visible_BxH()
    row_B = jnp.arange(len(history_BxH))
    # An item and the next one; all items of the history are near enough to be no
    # negatives of each other.
    index_B, mask_B = own.draw(visible_BxH[:, :-1] & visible_BxH[:, 1:])
    size = len(forward.vectors_UxD)
    shown_BxH = jnp.where(visible_BxH, history_BxH, size)  # others are dropped
    excluded_BxU = jnp.zeros((len(row_B), size), bool)
    excluded_BxU = excluded_BxU.at[row_B[:, None], shown_BxH].set(True, mode="drop")
    unit_UxD = unit_vectors(forward.vectors_UxD)
    return auxiliary.contrast(
        unit_UxD[history_BxH[row_B, index_B]],
        unit_UxD,
        history_BxH[row_B, index_B + 1],
        excluded_BxU,
        forward.batch.items.log_weight_U,
        mask_B,
        own.temperature,
    )


def _duorec(own: Objectives, forward: ForwardPass) -> Array:
    # One target of each history: all of them would be a matrix of P x P.
    targets_BxH = forward.targets_BxH()
    index_B, mask_B = own.draw(targets_BxH >= 0)
    row_B = jnp.arange(len(index_B))
    return auxiliary.duorec(
        unit_vectors(forward.users_BxHxD[row_B, index_B]),
        unit_vectors(forward.encode_users()[row_B, index_B]),
        targets_BxH[row_B, index_B],
        mask_B,
        own.temperature,
    )


def _rating(own: Objectives, forward: ForwardPass) -> Array:
    batch = forward.batch
    mask_P = (batch.position_P >= 0) & (batch.label_P >= 0)
    inputs = LossInputs(
        *forward.compared,
        batch.targets_P,
        mask_P,
        batch.items.log_weight_U,
        batch.label_P,
    )
    return auxiliary.mean_where(rating(inputs), mask_P)


OBJECTIVES: dict[str, Callable[[Objectives, ForwardPass], Array]] = {
    CATEGORY: _category,
    "contrast": _contrast,
    "duorec": _duorec,
    RATING: _rating,
}
