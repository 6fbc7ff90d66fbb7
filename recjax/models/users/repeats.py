"""Marks repeated items in a history."""

import flax.linen as nn
import jax

from recjax.common.repeats import repeated


class RepeatEmbedding(nn.Module):
    """A learned vector for items that the history had before."""

    @nn.compact
    def __call__(
        self, history_BxHxD: jax.Array, history_BxH: jax.Array, mask_BxH: jax.Array
    ) -> jax.Array:
        """history_BxHxD, marked.

        Args:
          history_BxHxD: vectors.
          history_BxH: whose items these are, by any numbering.
          mask_BxH: which of them are there.
        """
        width, dtype = history_BxHxD.shape[-1], history_BxHxD.dtype
        mark_D = self.param("mark", nn.initializers.normal(0.02), (width,))
        is_repeat_BxH = repeated(history_BxH, mask_BxH)
        return (
            history_BxHxD + is_repeat_BxH[..., None] * mark_D.astype(dtype)[None, None]
        )
