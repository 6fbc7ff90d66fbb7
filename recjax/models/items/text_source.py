"""Item source: a pretrained encoder over the item's text."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.encoders.bert import Bert, BertConfig, gelu
from recjax.models.items.pooling import AttentionPool, pool_first, pool_mean


class TextSource(nn.Module):
    """A pretrained encoder over the item's text, pooled and projected.

    Between the two a perceptron, if any: `mlp_layers` hidden layers with GELU, each as
    wide as the encoder, so that the projection alone narrows (Yuan et al., IDvs.MoRec,
    2023, table 5, over frozen vectors).

    `frozen_blocks` of the chain embeddings, layers, pooling are constant in the
    current phase: they run without dropout, or not at all where the catalogue
    brings their output. `remat_rows`: see `Bert`.
    """

    encoder_config: BertConfig
    width: int
    pooling: str
    mlp_layers: int = 0
    frozen_blocks: int = 0
    remat_rows: int = 0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        pooler = self.pooling == "pooler"
        self.encoder = Bert(self.encoder_config, self.dtype, pooler, self.remat_rows)
        if self.pooling == "attention":
            self.pool = AttentionPool(dtype=self.dtype)
        size = self.encoder_config.hidden_size
        self.mlp = [nn.Dense(size, dtype=self.dtype) for _ in range(self.mlp_layers)]
        self.project = nn.Dense(self.width, dtype=self.dtype)

    def __call__(
        self, arrays: dict[str, jax.Array], items: Any, train: bool
    ) -> jax.Array:
        """Encodes the items' texts: vectors_UxD.

        Args:
          arrays: of the whole catalogue, one of `ids_T` (tokens), `states_TxE`
            (output of the frozen blocks, by token), `vectors_NxE` (pooled).
          items: the `Items` of a batch.
          train: whether dropout is on.
        """
        if "vectors_NxE" in arrays:
            pooled_UxE = arrays["vectors_NxE"][items.items_U]
        else:
            pooled_UxE = self.pool_states(
                self.encode(arrays, items.packed, train=train), items.packed
            )
        x_UxE = pooled_UxE.astype(self.dtype)
        for hidden in self.mlp:
            x_UxE = gelu(hidden(x_UxE))
        return self.project(x_UxE)

    def encode(
        self,
        arrays: dict[str, jax.Array],
        packed: Any,
        stop: int | None = None,
        train: bool = False,
    ) -> jax.Array:
        """States_RxLxE after the embeddings and the layers before `stop`."""
        layers = self.encoder_config.num_hidden_layers
        start = min(max(self.frozen_blocks - 1, 0), layers)
        if "states_TxE" in arrays:
            x = arrays["states_TxE"][packed.index_RxL]
        else:
            x = self.encoder.embed(
                arrays["ids_T"][packed.index_RxL],
                packed.position_RxL,
                train=train and self.frozen_blocks == 0,
            )
            frozen_stop = start if stop is None else min(start, stop)
            x = self.encoder.run_layers(x, packed.segment_RxL, 0, frozen_stop)
        return self.encoder.run_layers(x, packed.segment_RxL, start, stop, train)

    def pool_states(self, states_RxLxE: jax.Array, packed: Any) -> jax.Array:
        """Last block: token states -> pooled_UxE, float32."""
        states_RxLxE = states_RxLxE.astype(jnp.float32)
        if self.pooling == "attention":
            return self.pool(states_RxLxE, packed)
        if self.pooling == "mean":
            return pool_mean(states_RxLxE, packed)
        first_UxE = pool_first(states_RxLxE, packed)
        if self.pooling == "pooler":
            return self.encoder.pool_first(first_UxE)
        return first_UxE
