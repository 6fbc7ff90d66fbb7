"""Item tower, user tower and head as one module.

Every head scores a user and an item as `query . candidate + bias`, so that ranking,
evaluation and serving need nothing but three arrays.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.encoders.bert import BertConfig
from recjax.models.heads import HEADS, FusionWeights, combine_scores
from recjax.models.items.tower import Catalogue, ItemTower
from recjax.models.layers.graph import propagate
from recjax.models.users import BIDIRECTIONAL, USER_TOWERS, USES_GRAPH
from recjax.models.users.repeats import RepeatEmbedding


class Recommender(nn.Module):
    """Ranks items for users; see `items.TextSource` for what is said of text."""

    num_items: int
    width: int
    item_sources: tuple[str, ...]
    item_combine: str
    item_pooling: str
    item_mlp_layers: int
    encoder_config: BertConfig | None
    user_tower: Callable[[Any], nn.Module]
    head_name: str
    head_temperature: float
    frozen_blocks: int = 0
    remat_rows: int = 0
    dtype: Any = jnp.float32
    history_length: int = 1
    bidirectional: bool = False
    graph_layers: int = 0
    num_fused: int = 0
    mark_repeats: bool = False

    def setup(self) -> None:
        self.items = ItemTower(
            self.num_items,
            self.width,
            self.item_sources,
            self.item_combine,
            self.item_pooling,
            self.item_mlp_layers,
            self.encoder_config,
            self.frozen_blocks,
            self.remat_rows,
            self.dtype,
        )
        self.users = self.user_tower(self.dtype)
        self.head = HEADS[self.head_name](self.num_items, self.head_temperature)
        if self.num_fused:
            self.late_fusion = FusionWeights(self.num_fused)
        if self.mark_repeats:
            self.repeat = RepeatEmbedding()

    def encode_items(
        self, catalogue: Catalogue, items: Any, train: bool = False
    ) -> jax.Array:
        """The batch's distinct items, each once: vectors_UxD."""
        return self.items(catalogue, items, train)

    def propagate(
        self, vectors_NxD: jax.Array, graph: Any
    ) -> tuple[jax.Array, jax.Array]:
        """All items' vectors -> those that rank, and those that histories are of."""
        if not self.graph_layers:
            return vectors_NxD, vectors_NxD
        return propagate(vectors_NxD, graph, self.graph_layers)

    def encode_users(
        self,
        history_BxHxD: jax.Array,
        mask_BxH: jax.Array,
        train: bool = False,
        hidden_BxH: jax.Array | None = None,
    ) -> jax.Array:
        """One user vector per prefix, or per place where the tower sees all others."""
        if not self.bidirectional:
            return self.users(history_BxHxD, mask_BxH, train)
        return self.users(history_BxHxD, mask_BxH, train, hidden_BxH)

    def encode_prefix(
        self, catalogue: Catalogue, packed: Any, blocks: int
    ) -> jax.Array:
        """States_RxLxE after the first `blocks` blocks of the text encoder."""
        return self.items.text.encode(catalogue["text"], packed, stop=blocks - 1)

    def pool_text(self, states_RxLxE: jax.Array, packed: Any) -> jax.Array:
        """The text encoder's last block: pooled_UxE, before any projection."""
        return self.items.text.pool_states(states_RxLxE, packed)

    def item_candidates(
        self, vectors_UxD: jax.Array, items_U: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """candidates_UxD and bias_U to score against `user_queries`."""
        return self.head.candidates(vectors_UxD, items_U)

    def embed_history(
        self, vectors_UxD: jax.Array, history_BxH: jax.Array, mask_BxH: jax.Array
    ) -> jax.Array:
        """Items' vectors -> history_BxHxD, what the user tower gets."""
        history_BxHxD = vectors_UxD[history_BxH]
        if not self.mark_repeats:
            return history_BxHxD
        marked_BxHxD: jax.Array = self.repeat(history_BxHxD, history_BxH, mask_BxH)
        return marked_BxHxD

    def user_queries(
        self, vectors_NxD: jax.Array, history_BxH: jax.Array, mask_BxH: jax.Array
    ) -> jax.Array:
        """queries_BxD of whole histories of catalogue rows."""
        history_BxHxD, hidden_BxH = (
            self.embed_history(vectors_NxD, history_BxH, mask_BxH),
            None,
        )
        if self.bidirectional:  # asked for a hidden item after the newest one
            newest = self.history_length - 1
            after = ((0, 0), (0, 1), (0, 0))
            history_BxHxD = jnp.pad(history_BxHxD[:, -newest:], after)
            mask_BxH = jnp.pad(mask_BxH[:, -newest:], after[:2], constant_values=True)
            hidden_BxH = jnp.zeros_like(mask_BxH).at[:, -1].set(True)
        users_BxHxD = self.encode_users(history_BxHxD, mask_BxH, hidden_BxH=hidden_BxH)
        return self.head.queries(users_BxHxD[:, -1])

    def fuse_scores(self, baseline_scores_BxMxN: jax.Array) -> jax.Array:
        """What the baselines' scores add to the model's: fused_scores_BxN."""
        return combine_scores(self.late_fusion(), baseline_scores_BxMxN)

    def __call__(
        self, catalogue: Catalogue, batch: Any, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """A training batch's queries_PxD, candidates_UxD and bias_U.

        The candidates are the batch's items; the whole catalogue where it brings
        vectors of an earlier state, `stale`.
        """
        if self.num_fused and self.is_initializing():
            self.late_fusion()
        items = batch.items
        vectors_UxD = read_UxD = self.encode_items(catalogue, items, train)
        if "graph" in catalogue:  # the batch's items are the catalogue, filled up
            ranks_NxD, read_UxD = self.propagate(
                vectors_UxD[: self.num_items], catalogue["graph"]
            )
            vectors_UxD = vectors_UxD.at[: self.num_items].set(ranks_NxD)
        history_BxHxD = self.embed_history(read_UxD, batch.history_BxH, batch.mask_BxH)
        users_BxHxD = self.encode_users(
            history_BxHxD, batch.mask_BxH, train, batch.hidden_BxH
        )
        users_PxD = users_BxHxD.reshape(-1, self.width)[batch.position_P]
        queries_PxD = self.head.queries(users_PxD)
        items_U = items.items_U
        if "stale" in catalogue:
            # What the batch has just encoded is fresh, and all that a gradient reaches.
            stale_NxD = catalogue["stale"]["vectors_NxD"]
            place_U = jnp.where(items_U < 0, self.num_items, items_U)  # beyond: dropped
            vectors_UxD = stale_NxD.at[place_U].set(vectors_UxD, mode="drop")
            items_U = jnp.arange(self.num_items)
        return queries_PxD, *self.head.candidates(vectors_UxD, items_U)


def make_model(
    config: Any, num_items: int, encoder_config: BertConfig | None
) -> Recommender:
    """Builds the module that `item_tower`, `user_tower` and `head` describe."""
    if encoder_config is not None:
        encoder_config = dataclasses.replace(
            encoder_config,
            lora_rank=config.text.lora_rank,
            lora_alpha=config.text.lora_alpha,
        )
    users = config.user_tower.copy_and_resolve_references()
    length = config.data.history_length
    return Recommender(
        num_items=num_items,
        width=config.item_tower.width,
        item_sources=tuple(config.item_tower.sources),
        item_combine=config.item_tower.combine,
        item_pooling=config.item_tower.pooling,
        item_mlp_layers=config.item_tower.mlp_layers,
        encoder_config=encoder_config,
        user_tower=lambda dtype: USER_TOWERS[users.name](users, length, dtype),
        head_name=config.head.name,
        head_temperature=config.head.temperature,
        remat_rows=config.text.remat_rows,
        history_length=length,
        bidirectional=users.name in BIDIRECTIONAL,
        graph_layers=users.num_layers if users.name in USES_GRAPH else 0,
        num_fused=len(config.head.fusion),
        mark_repeats=users.repeats,
        dtype=jnp.dtype(config.train.dtype),
    )
