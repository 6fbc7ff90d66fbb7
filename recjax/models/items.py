"""Item towers: named sources (id, text), each an item vector, and their combination."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.bert import Bert, BertConfig, gelu

# Per source, the arrays of the whole catalogue that it reads.
Catalogue = dict[str, dict[str, jax.Array]]


class IdSource(nn.Module):
    """One free vector per catalogue row."""

    num_items: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, arrays: Any, items: Any, train: bool) -> jax.Array:
        """Looks up vectors_UxD."""
        del arrays, train
        init = nn.initializers.normal(self.width**-0.5)
        embed = nn.Embed(
            self.num_items,
            self.width,
            embedding_init=init,
            dtype=self.dtype,
            name="vectors",
        )
        return embed(items.rows_U)


class AttentionPool(nn.Module):
    """Additive attention over a text's tokens (Wu et al., NRMS, 2019, equation 5)."""

    width: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, states_RxLxE: jax.Array, packed: Any) -> jax.Array:
        """Token states -> pooled_UxE."""
        hidden = nn.Dense(self.width, dtype=self.dtype, name="hidden")(states_RxLxE)
        score = nn.Dense(1, use_bias=False, dtype=jnp.float32, name="query")
        score_T = score(jnp.tanh(hidden)).reshape(-1)
        num = packed.first_U.shape[0]
        owner_T = packed.owner_RxL.reshape(-1)
        best_U = jax.ops.segment_max(score_T, owner_T, num)
        best_U = jnp.where(jnp.isfinite(best_U), best_U, 0)
        weight_T = jnp.exp(score_T - best_U.at[owner_T].get(mode="fill", fill_value=0))
        states_TxE = states_RxLxE.reshape(-1, states_RxLxE.shape[-1])
        total_UxE = jax.ops.segment_sum(weight_T[:, None] * states_TxE, owner_T, num)
        total_U = jax.ops.segment_sum(weight_T, owner_T, num)
        return total_UxE / jnp.maximum(total_U, 1e-9)[:, None]


def pool_first(states_RxLxE: jax.Array, packed: Any) -> jax.Array:
    """State of each text's first token, [CLS] or whatever the tokenizer puts there."""
    return states_RxLxE.reshape(-1, states_RxLxE.shape[-1])[packed.first_U]


def pool_mean(states_RxLxE: jax.Array, packed: Any) -> jax.Array:
    """Mean over each text's tokens, special tokens included."""
    num = packed.first_U.shape[0]
    owner_T = packed.owner_RxL.reshape(-1)
    states_TxE = states_RxLxE.reshape(-1, states_RxLxE.shape[-1])
    total_UxE = jax.ops.segment_sum(states_TxE, owner_T, num)
    count_U = jax.ops.segment_sum(jnp.ones_like(owner_T), owner_T, num)
    return total_UxE / jnp.maximum(count_U, 1)[:, None]


POOLINGS = ("cls", "mean", "attention", "pooler")


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
            pooled_UxE = arrays["vectors_NxE"][items.rows_U]
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


def combine_sum(vectors: Sequence[jax.Array], width: int) -> jax.Array:
    """Sum of the sources' vectors."""
    del width
    return sum(vectors[1:], start=vectors[0])


def combine_concat(vectors: Sequence[jax.Array], width: int) -> jax.Array:
    """Linear map of the concatenated vectors."""
    x = jnp.concatenate(vectors, axis=-1)
    return nn.Dense(width, use_bias=False, dtype=x.dtype, name="concat")(x)


def combine_gate(vectors: Sequence[jax.Array], width: int) -> jax.Array:
    """Sources weighted per feature by a softmax over them, times how many there are."""
    x = jnp.concatenate(vectors, axis=-1)
    gate = nn.Dense(width * len(vectors), dtype=x.dtype, name="gate")(x)
    gate = jax.nn.softmax(gate.reshape(*x.shape[:-1], len(vectors), width), axis=-2)
    return (gate * jnp.stack(vectors, axis=-2)).sum(-2) * len(vectors)


COMBINE: dict[str, Callable[[Sequence[jax.Array], int], jax.Array]] = {
    "sum": combine_sum,
    "concat": combine_concat,
    "gate": combine_gate,
}


class ItemTower(nn.Module):
    """Sources by name, combined."""

    num_items: int
    width: int
    sources: tuple[str, ...]
    combine: str
    pooling: str
    mlp_layers: int
    encoder_config: BertConfig | None
    frozen_blocks: int
    remat_rows: int
    dtype: Any

    def setup(self) -> None:
        for name in self.sources:
            setattr(self, name, SOURCES[name](self))

    @nn.compact
    def __call__(self, catalogue: Catalogue, items: Any, train: bool) -> jax.Array:
        """Encodes U items: vectors_UxD."""
        vectors = [
            getattr(self, name)(catalogue.get(name, {}), items, train)
            for name in self.sources
        ]
        if len(vectors) == 1:
            return vectors[0]
        return COMBINE[self.combine](vectors, self.width)


SOURCES: dict[str, Callable[[ItemTower], nn.Module]] = {
    "id": lambda t: IdSource(t.num_items, t.width, t.dtype),
    "text": lambda t: TextSource(
        t.encoder_config,
        t.width,
        t.pooling,
        t.mlp_layers,
        t.frozen_blocks,
        t.remat_rows,
        t.dtype,
    ),
}
