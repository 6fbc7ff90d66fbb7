"""Recency-weighted mean of the history, with a deep tower as a correction of it."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from recjax.common.vectors import unit_vectors

DECAY = 0.5  # initial weight of an item, relative to the next more recent one


class RecencyTower(nn.Module):
    """Mean of the history's unit vectors with learned weights by age, plus a tower.

    Initially the weights halve with every more recent item and the tower adds nothing,
    so that the user vector is that of `baselines.text.TextSimilarity`.

    Attributes:
      length: maximum history length H.
      width: of the tower inside.
      tower: a user tower whose output is added to the mean; None = none.
    """

    length: int
    width: int
    tower: nn.Module | None

    @nn.compact
    def __call__(
        self, history_BxHxD: Array, mask_BxH: Array, train: bool, **inputs: Array
    ) -> Array:
        """Returns users_BxHxD; the tower inside receives further inputs by name."""
        size, width = history_BxHxD.shape[1:]
        unit_BxHxD = unit_vectors(history_BxHxD)
        log_weight_H = self.param(
            "log_weight", lambda _: jnp.log(DECAY) * jnp.arange(self.length)
        )
        age_HxH = jnp.arange(size)[:, None] - jnp.arange(size)[None]
        weight_HxH = jnp.exp(log_weight_H)[jnp.maximum(age_HxH, 0)]
        weight_HxH = jnp.where(age_HxH >= 0, weight_HxH, 0.0)
        mask_BxH = mask_BxH.astype(jnp.float32)
        total_BxH = jnp.einsum("hg,bg->bh", weight_HxH, mask_BxH)
        sums_BxHxD = jnp.einsum(
            "hg,bgd->bhd", weight_HxH, unit_BxHxD * mask_BxH[..., None]
        )
        users_BxHxD = sums_BxHxD / jnp.maximum(total_BxH, 1e-9)[..., None]
        if self.tower is None:
            return users_BxHxD
        # A feature of a unit vector is small; the tower inside expects about one.
        inputs_BxHxD = nn.Dense(self.width, name="inputs")(unit_BxHxD * width**0.5)
        deep_BxHxD = self.tower(inputs_BxHxD, mask_BxH > 0, train, **inputs)
        zeros = nn.initializers.zeros
        output = nn.Dense(width, use_bias=False, kernel_init=zeros, name="output")
        return users_BxHxD + output(deep_BxHxD.astype(jnp.float32))
