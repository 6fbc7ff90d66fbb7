"""Item tower: combines the vectors of named sources (id, text) into an item vector."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from recjax.models.encoders.base import EncoderConfig
from recjax.models.items.text_source import TextSource

# By name of a source, the arrays of the whole catalogue that it reads.
Catalogue = dict[str, dict[str, Array]]


def combine_concat(vectors: Sequence[Array], width: int) -> Array:
    """Linear map of the concatenated vectors."""
    x = jnp.concatenate(vectors, axis=-1)
    return nn.Dense(width, use_bias=False, dtype=x.dtype, name="concat")(x)


def combine_gate(vectors: Sequence[Array], width: int) -> Array:
    """Sum of the sources, weighted per feature by a softmax over the sources."""
    x = jnp.concatenate(vectors, axis=-1)
    gate = nn.Dense(width * len(vectors), dtype=x.dtype, name="gate")(x)
    gate = jax.nn.softmax(gate.reshape(*x.shape[:-1], len(vectors), width), axis=-2)
    # Multiplied by the number of sources, so that equal weights give the plain sum.
    return (gate * jnp.stack(vectors, axis=-2)).sum(-2) * len(vectors)


ZERO_SHOT = "zero_shot"  # value of `item_tower.init`

COMBINE: dict[str, Callable[[Sequence[Array], int], Array]] = {
    "sum": lambda vectors, width: sum(vectors[1:], start=vectors[0]),
    "concat": combine_concat,
    "gate": combine_gate,
}


class ItemTower(nn.Module):
    """Combines the item vectors of its sources.

    Attributes:
      sources: modules `(arrays, items, train) -> vectors_UxD`; a source's name is also
        the name of its parameters and of the arrays it reads in the catalogue.
      combine: a key of `COMBINE`, used if there are several sources.
    """

    # Parameters are under a source's own name, `text`, and not under `sources_0`.
    preserve_adopted_names = True

    sources: tuple[nn.Module, ...]
    combine: str
    width: int

    @nn.compact
    def __call__(self, catalogue: Catalogue, items: Any, train: bool) -> Array:
        """Encodes U items: vectors_UxD."""
        vectors = [
            source(catalogue.get(str(source.name), {}), items, train)
            for source in self.sources
        ]
        if len(vectors) == 1:
            return vectors[0]
        return COMBINE[self.combine](vectors, self.width)


class IdSource(nn.Module):
    """One learned vector per catalogue item; reads no array of the catalogue.

    Attributes:
      start_at_zero: whether the vectors are zero at first, and not of unit length.
      dropout: fraction of a step's items that have no vector in it, so that the other
        sources learn to represent an item alone (Volkovs et al., DropoutNet, 2017).
    """

    num_items: int
    width: int
    dtype: Any
    start_at_zero: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, arrays: Any, items: Any, train: bool) -> Array:
        # Vectors of about unit length, whatever the width.
        init = nn.initializers.normal(self.width**-0.5)
        if self.start_at_zero:
            init = nn.initializers.zeros
        shape = self.num_items, self.width
        embed = nn.Embed(*shape, self.dtype, embedding_init=init, name="vectors")
        vectors_UxD = embed(items.items_U)
        if not train or not self.dropout:
            return vectors_UxD
        key, shape = self.make_rng("dropout"), (len(vectors_UxD), 1)
        keep_Ux1 = jax.random.bernoulli(key, 1 - self.dropout, shape)
        return jnp.where(keep_Ux1, vectors_UxD, 0)


def make_text_source(
    config: Any, _: int, encoder_config: EncoderConfig | None
) -> TextSource:
    """Builds the text source from `text`, `item_tower` and `augment` of the config."""
    assert encoder_config is not None
    text, tower, dtype = config.text, config.item_tower, jnp.dtype(config.train.dtype)
    encoder_config = encoder_config.with_lora(text.lora_rank, text.lora_alpha)
    return TextSource(
        encoder=encoder_config.make_encoder(dtype, text.remat_rows),
        width=tower.width,
        pooling=tower.pooling,
        mlp_layers=tower.mlp_layers,
        dtype=dtype,
        token_dropout=config.augment.token_dropout,
        token_span=config.augment.token_span,
        name="text",
    )


# Called with the config, N and the config of the text encoder, which is None without
# texts.
SOURCES: dict[str, Callable[[Any, int, EncoderConfig | None], nn.Module]] = {
    "id": lambda config, num_items, _: IdSource(
        num_items,
        config.item_tower.width,
        jnp.dtype(config.train.dtype),
        start_at_zero=config.item_tower.init == ZERO_SHOT,
        dropout=config.item_tower.id_dropout,
        name="id",
    ),
    "text": make_text_source,
}
