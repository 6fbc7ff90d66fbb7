"""Item source: one free vector per item."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class IdSource(nn.Module):
    """One free vector per catalogue item; reads no array of the catalogue."""

    num_items: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, arrays: Any, items: Any, train: bool) -> jax.Array:
        """Looks up vectors_UxD."""
        del arrays, train
        # Vectors of about unit length, whatever the width.
        init = nn.initializers.normal(self.width**-0.5)
        embed = nn.Embed(
            self.num_items,
            self.width,
            embedding_init=init,
            dtype=self.dtype,
            name="vectors",
        )
        return embed(items.items_U)
