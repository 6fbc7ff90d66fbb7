"""Marks repeated items in a history."""

import flax.linen as nn
from jax import Array

from recjax.common.repeats import repeated


class RepeatEmbedding(nn.Module):
    """Adds a learned vector to items that occurred earlier in the history.

    Attributes:
      init_scale: standard deviation of the vector's initial values.
    """

    init_scale: float = 0.02

    @nn.compact
    def __call__(
        self, history_BxHxD: Array, history_BxH: Array, mask_BxH: Array
    ) -> Array:
        """Returns history_BxHxD with marks; items may be indexed in any numbering."""
        width, dtype = history_BxHxD.shape[-1], history_BxHxD.dtype
        mark_D = self.param("mark", nn.initializers.normal(self.init_scale), (width,))
        is_repeat_BxH = repeated(history_BxH, mask_BxH)
        mark_1x1xD = mark_D.astype(dtype)[None, None]
        return history_BxHxD + is_repeat_BxH[..., None] * mark_1x1xD
