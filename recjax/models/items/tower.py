"""Item towers: named sources (id, text), each an item vector, and their combination."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.encoders.bert import BertConfig
from recjax.models.items.id_source import IdSource
from recjax.models.items.text_source import TextSource

# Per source, the arrays of the whole catalogue that it reads.
Catalogue = dict[str, dict[str, jax.Array]]


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
