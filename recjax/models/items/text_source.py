"""Item source: a pretrained encoder over the item's text."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from recjax.common.param_paths import TEXT_PARAMS
from recjax.models.encoders.base import Encoder, EncoderConfig
from recjax.models.layers.activations import gelu
from recjax.models.layers.pooling import AttentionPool, pool_first, pool_mean
from recjax.models.layers.token_dropout import drop_tokens

POOLINGS = ("cls", "mean", "attention", "pooler")


class TextSource(nn.Module):
    """A pretrained encoder over the item's text, pooled and projected.

    An optional MLP comes before the projection: `mlp_layers` hidden layers with GELU,
    each as wide as the encoder, so that only the projection reduces the width (Yuan et
    al., IDvs.MoRec, 2023, table 5, over frozen vectors).

    Attributes:
      pooling: the chain's last block, one of `POOLINGS`.
      frozen_blocks: number of leading blocks that are constant in the current phase.
        They run without dropout, or not at all if the catalogue holds their output.
      token_dropout: probability of a token to be left out of what the other blocks read
        in training, see `drop_tokens`.
      token_span: share of a text's tokens that are left out in one place.
    """

    encoder: Encoder
    width: int
    pooling: str
    mlp_layers: int = 0
    frozen_blocks: int = 0
    dtype: Any = jnp.float32
    token_dropout: float = 0.0
    token_span: float = 0.0

    def setup(self) -> None:
        if self.pooling == "attention":
            self.pool = AttentionPool(dtype=self.dtype)
        size = self.encoder.config.hidden_size
        self.mlp = [nn.Dense(size, dtype=self.dtype) for _ in range(self.mlp_layers)]
        self.project = nn.Dense(self.width, dtype=self.dtype)

    def __call__(self, arrays: dict[str, Array], items: Any, train: bool) -> Array:
        """Encodes the texts of a batch's `Items`: vectors_UxD.

        `arrays` holds one array of the whole catalogue: `ids_T` (token ids),
        `states_TxE` (output of the frozen blocks, by token) or `vectors_NxE` (pooled).
        """
        if "vectors_NxE" in arrays:
            x_UxE = arrays["vectors_NxE"][items.items_U]
        else:
            packed = items.packed
            if train and (self.token_dropout or self.token_span):
                packed = drop_tokens(
                    packed,
                    self.make_rng("dropout"),
                    rate=self.token_dropout,
                    span=self.token_span,
                )
            states_RxLxE = self.encode(arrays, packed, train=train)
            x_UxE = self.pool_states(states_RxLxE, packed)
        x_UxE = x_UxE.astype(self.dtype)
        for hidden in self.mlp:
            x_UxE = gelu(hidden(x_UxE))
        return self.project(x_UxE)

    def encode(
        self, arrays: Any, packed: Any, stop: int | None = None, train: bool = False
    ) -> Array:
        """Runs the blocks before `stop`, by default all but pooling: states_RxLxE."""
        pooling_block = self.encoder.config.num_blocks - 1
        stop = pooling_block if stop is None else min(stop, pooling_block)
        start = min(max(self.frozen_blocks, 1), pooling_block)
        if "states_TxE" in arrays:
            x_RxLxE = arrays["states_TxE"][packed.index_RxL]
        else:
            # Frozen blocks run as in evaluation: their cached output, which replaces
            # them in training, has no dropout either.
            drops = train and self.frozen_blocks == 0
            ids_RxL = arrays["ids_T"][packed.index_RxL]
            x_RxLxE = self.encoder.embed(ids_RxL, packed.position_RxL, train=drops)
            frozen_stop = min(start, stop)
            x_RxLxE = self.encoder.run(x_RxLxE, packed.segment_RxL, 1, frozen_stop)
        return self.encoder.run(x_RxLxE, packed.segment_RxL, start, stop, train)

    def pool_states(self, states_RxLxE: Array, packed: Any) -> Array:
        """Runs the last block: token states -> pooled_UxE."""
        # Sums over tokens lose digits in bfloat16, and a pooled vector is kept on disk.
        states_RxLxE = states_RxLxE.astype(jnp.float32)
        if self.pooling == "attention":
            return self.pool(states_RxLxE, packed)
        pools: dict[str, Callable[..., Array]] = {
            "cls": pool_first,
            "mean": pool_mean,
            "pooler": self.encoder.pool_states,
        }
        return pools[self.pooling](states_RxLxE, packed)


def is_text_block(path: str) -> bool:
    """Whether a parameter of the model belongs to the encoder or to its pooling."""
    return path.startswith((TEXT_PARAMS + "encoder/", TEXT_PARAMS + "pool/"))


def block_of(path: str, encoder_config: EncoderConfig) -> int | None:
    """Returns the block that owns a parameter of the model; None outside the chain."""
    if not is_text_block(path):
        return None
    module, _, rest = path.removeprefix(TEXT_PARAMS).partition("/")
    if module == "encoder":
        return encoder_config.block_of(rest)
    # The text source's own pooling is the last block of the encoder's chain.
    return encoder_config.num_blocks - 1


def count_frozen_blocks(
    encoder_config: EncoderConfig | None, trainable: Iterable[str]
) -> int:
    """Counts the leading blocks without a trainable parameter.

    0 without a text source; `num_blocks` if encoder and pooling are entirely frozen.
    """
    if encoder_config is None:
        return 0
    blocks = (block_of(path, encoder_config) for path in trainable)
    return min((b for b in blocks if b is not None), default=encoder_config.num_blocks)
