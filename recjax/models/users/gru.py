"""Gated recurrent units over the history."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from recjax.models.layers.dropout import Dropout


class GruTower(nn.Module):
    """Layers of gated recurrent units (Hidasi et al., GRU4Rec, 2016)."""

    num_layers: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, history_BxHxD: Array, mask_BxH: Array, train: bool) -> Array:
        width = history_BxHxD.shape[-1]

        def step(
            cell: nn.GRUCell, state_BxD: Array, event: tuple[Array, Array]
        ) -> tuple[Array, Array]:
            x_BxD, mask_B = event
            next_BxD, _ = cell(state_BxD, x_BxD)
            # Padding leaves the state at zero: the first item starts from it.
            state_BxD = jnp.where(mask_B[:, None], next_BxD, state_BxD)
            return state_BxD, state_BxD

        run = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        x = history_BxHxD.astype(self.dtype)
        start_BxD = jnp.zeros((len(x), width), self.dtype)
        for i in range(self.num_layers):
            x = Dropout(self.dropout)(x, train)
            cell = nn.GRUCell(width, dtype=self.dtype, name=f"layer_{i}")
            _, x = run(cell, start_BxD, (x, mask_BxH))
        return nn.Dense(width, dtype=self.dtype, name="output")(x)
