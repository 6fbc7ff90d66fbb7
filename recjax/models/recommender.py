"""Item tower, user tower and head as one module.

Every head scores a user and an item as `query . candidate + bias`, so that ranking,
evaluation and serving need only three arrays.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from recjax.models.encoders.base import EncoderConfig
from recjax.models.heads import HEADS, EventBias, FusionWeights, SeenBias
from recjax.models.items.text_source import TextSource
from recjax.models.items.tower import SOURCES, ZERO_SHOT, Catalogue, ItemTower
from recjax.models.layers.graph import propagate
from recjax.models.objectives import ForwardPass, Objectives
from recjax.models.users import BIDIRECTIONAL, USES_GRAPH, make_user_tower
from recjax.models.users.ratings import RatingEmbedding
from recjax.models.users.repeats import RepeatEmbedding


class Recommender(nn.Module):
    """Ranks items for users.

    Attributes:
      late_fusion: weights of baselines that are added to the scores; None = none.
      event_bias: biases of items with few training events; None = none.
      seen_bias: bias of the items of a history; None = none.
      repeat: marks items that occurred earlier in the history; None = no marks.
      ratings: marks liked and other items of the history; None = no marks.
      objectives: losses beside the main one; None = none.
      bidirectional: whether the user tower predicts hidden items (BERT4Rec).
      graph_layers: graph convolutions over the item vectors; 0 = none.
      reads_times: whether the user tower reads the times of events.
    """

    # The names of the first nine are the first parts of parameter paths.
    items: ItemTower
    users: nn.Module
    head: nn.Module
    late_fusion: FusionWeights | None
    event_bias: EventBias | None
    seen_bias: SeenBias | None
    repeat: RepeatEmbedding | None
    ratings: RatingEmbedding | None
    objectives: Objectives | None
    num_items: int
    history_length: int
    bidirectional: bool = False
    graph_layers: int = 0
    reads_times: bool = False

    @property
    def text(self) -> TextSource | None:
        """The text source, if the item tower has one."""
        sources = self.items.sources
        return next((s for s in sources if isinstance(s, TextSource)), None)

    @property
    def encoder_config(self) -> EncoderConfig | None:
        """The text encoder's static description, if there is one."""
        return None if self.text is None else self.text.encoder.config

    def with_text(self, **changes: Any) -> "Recommender":
        """Returns the same model with other attributes of the text source, if any."""
        sources = tuple(
            s.clone(name=s.name, **changes) if isinstance(s, TextSource) else s
            for s in self.items.sources
        )
        return self.clone(items=self.items.clone(sources=sources))

    def without_learned_pooling(self) -> "Recommender":
        """Returns the same model with mean pooling where pooling has to be learned."""
        learned = self.text is not None and self.text.pooling == "attention"
        return self.with_text(pooling="mean") if learned else self

    def encode_items(
        self, catalogue: Catalogue, items: Any, train: bool = False
    ) -> Array:
        """Encodes the batch's distinct items, each once: vectors_UxD."""
        return self.items(catalogue, items, train)

    def propagate(self, vectors_NxD: Array, graph: Any) -> tuple[Array, Array]:
        """Graph propagation: returns (candidate vectors, history vectors)."""
        if self.graph_layers:
            return propagate(vectors_NxD, graph, self.graph_layers)
        return vectors_NxD, vectors_NxD

    def encode_users(
        self,
        history_BxHxD: Array,
        mask_BxH: Array,
        train: bool = False,
        hidden_BxH: Array | None = None,
        times_BxH: Array | None = None,
    ) -> Array:
        """Returns users_BxHxD: position h has the user vector of the prefix up to h.

        In a bidirectional tower it depends on the entire history. `times_BxH` are as in
        `Batch`; None if they are unknown.
        """
        hidden = (hidden_BxH,) if self.bidirectional else ()
        times = {"times_BxH": times_BxH} if self.reads_times else {}
        return self.users(history_BxHxD, mask_BxH, train, *hidden, **times)

    def encode_prefix(self, catalogue: Catalogue, packed: Any, blocks: int) -> Array:
        """Runs the first `blocks` blocks of the text encoder: states_RxLxE."""
        assert self.text is not None
        return self.text.encode(catalogue["text"], packed, stop=blocks)

    def pool_text(self, states_RxLxE: Array, packed: Any) -> Array:
        """Runs the text encoder's last block: pooled_UxE, before any projection."""
        assert self.text is not None
        return self.text.pool_states(states_RxLxE, packed)

    def item_candidates(
        self, vectors_UxD: Array, items_U: Array, group_U: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns candidates_UxD and bias_U, to score against `user_queries`.

        `group_U` is 0 for new items, 1 for cold and 2 for warm ones; None adds no
        `event_bias`.
        """
        candidates_UxD, bias_U = self.head.candidates(vectors_UxD, items_U)
        if self.event_bias is not None and group_U is not None:
            bias_U += self.event_bias()[group_U]
        return candidates_UxD, bias_U

    def embed_history(
        self,
        vectors_UxD: Array,
        history_BxH: Array,
        mask_BxH: Array,
        liked_BxH: Array | None = None,
    ) -> Array:
        """Looks up history_BxHxD, the input of the user tower; padding is zero.

        Without `liked_BxH` no rating is known.
        """
        # An empty history must not become that of the item that fills the padding.
        history_BxHxD = jnp.where(mask_BxH[..., None], vectors_UxD[history_BxH], 0)
        if self.repeat is not None:
            history_BxHxD = self.repeat(history_BxHxD, history_BxH, mask_BxH)
        if self.ratings is not None and liked_BxH is not None:
            history_BxHxD = self.ratings(history_BxHxD, liked_BxH, mask_BxH)
        return history_BxHxD

    def user_queries(
        self,
        vectors_NxD: Array,
        history_BxH: Array,
        mask_BxH: Array,
        times_BxH: Array | None = None,
        liked_BxH: Array | None = None,
    ) -> Array:
        """Returns queries_BxD of complete histories of catalogue items."""
        history_BxHxD = self.embed_history(
            vectors_NxD, history_BxH, mask_BxH, liked_BxH
        )
        hidden_BxH = None
        if self.bidirectional:
            # Training hides items inside the history; the next item is one more hidden
            # position after the newest event. It takes the place of the oldest one.
            newest = self.history_length - 1
            after = ((0, 0), (0, 1), (0, 0))
            history_BxHxD = jnp.pad(history_BxHxD[:, -newest:], after)
            mask_BxH = jnp.pad(mask_BxH[:, -newest:], after[:2], constant_values=True)
            hidden_BxH = jnp.zeros_like(mask_BxH).at[:, -1].set(True)
        users_BxHxD = self.encode_users(
            history_BxHxD, mask_BxH, hidden_BxH=hidden_BxH, times_BxH=times_BxH
        )
        return self.head.queries(users_BxHxD[:, -1])

    def fuse_scores(self, baseline_scores_BxMxN: Array) -> Array:
        """Weighted sum of the baselines' scores, to add to the model's: scores_BxN."""
        assert self.late_fusion is not None
        return jnp.einsum("m,bmn->bn", self.late_fusion(), baseline_scores_BxMxN)

    def bias_seen(
        self, scores_BxN: Array, history_BxH: Array, mask_BxH: Array
    ) -> Array:
        """Adds the bias of seen items, if there is one, to scores of all items."""
        if self.seen_bias is None:
            return scores_BxN
        return self.seen_bias(scores_BxN, history_BxH, mask_BxH)

    def __call__(
        self, catalogue: Catalogue, batch: Any, train: bool = False
    ) -> tuple[Array, Array, Array, dict[str, Array]]:
        """Returns queries_PxD, candidates_UxD and bias_U of a training batch.

        The candidates are the batch's items, or the entire catalogue if it contains
        `stale`, all item vectors of an earlier training state. The last value are the
        auxiliary losses by name, in training.
        """
        # Creates the parameters that validation tunes and training does not use.
        if self.is_initializing():
            for tuned in (self.late_fusion, self.event_bias):
                if tuned is not None:
                    tuned()
            none_1x1 = jnp.zeros((1, 1), jnp.int32)
            self.bias_seen(jnp.zeros((1, 1)), none_1x1, none_1x1 > 0)
        items = batch.items
        # An item that occurs in several histories, or as a target, is encoded once.
        vectors_UxD = self.encode_items(catalogue, items, train)
        input_UxD = vectors_UxD  # the vectors of items in histories
        if "graph" in catalogue:  # the batch's items are all N, padded to U
            own_NxD = vectors_UxD[: self.num_items]
            candidates_NxD, input_UxD = self.propagate(own_NxD, catalogue["graph"])
            vectors_UxD = vectors_UxD.at[: self.num_items].set(candidates_NxD)
        history_BxHxD = self.embed_history(
            input_UxD, batch.history_BxH, batch.mask_BxH, batch.liked_BxH
        )

        def encode_users() -> Array:
            own = batch.hidden_BxH, batch.times_BxH
            return self.encode_users(history_BxHxD, batch.mask_BxH, train, *own)

        users_BxHxD = encode_users()
        users_TxD = users_BxHxD.reshape(-1, users_BxHxD.shape[-1])
        queries_PxD = self.head.queries(users_TxD[batch.position_P])
        items_U, history_BxH = items.items_U, batch.history_BxH
        if "stale" in catalogue:
            # The batch's own items replace their stale vectors: they are up to date,
            # and gradients reach them only. Padding (-1) is sent out of range, because
            # JAX would take -1 as the last item.
            stale_NxD = catalogue["stale"]["vectors_NxD"]
            index_U = jnp.where(items_U < 0, self.num_items, items_U)
            vectors_UxD = stale_NxD.at[index_U].set(vectors_UxD, mode="drop")
            history_BxH = index_U[history_BxH]
            items_U = jnp.arange(self.num_items)
        compared = queries_PxD, *self.head.candidates(vectors_UxD, items_U)
        if self.objectives is None:
            return *compared, {}
        if self.is_initializing():
            self.objectives.init_params(users_BxHxD)
        if not train:
            return *compared, {}

        forward = ForwardPass(
            users_BxHxD,
            encode_users,
            vectors_UxD,
            items_U,
            history_BxH,
            compared,
            catalogue.get("categories", {}).get("category_N"),
            batch,
        )
        return *compared, self.objectives(forward)

    def combine_losses(self, main: Array, auxiliary: dict[str, Array]) -> Array:
        """Returns the weighted sum of the main loss and the auxiliary ones."""
        assert self.objectives is not None
        return self.objectives.combine(main, auxiliary)


def make_objectives(config: Any) -> Objectives | None:
    """Builds the auxiliary losses of `config.loss`; None if there are none."""
    if not config.auxiliary:
        return None
    return Objectives(
        tuple(config.auxiliary),
        tuple(config.auxiliary_weights),
        config.num_categories,
        config.temperature,
    )


def make_model(
    config: Any, num_items: int, encoder_config: EncoderConfig | None
) -> Recommender:
    """Builds the model that a config describes."""
    tower = config.item_tower
    users = config.user_tower.copy_and_resolve_references()
    length = config.data.history_length
    dtype = jnp.dtype(config.train.dtype)
    sources = tuple(
        SOURCES[name](config, num_items, encoder_config) for name in tower.sources
    )
    # The zero-shot start ranks by text: everything else adds nothing at first.
    init_scale = 0.0 if tower.init == ZERO_SHOT else 0.02
    return Recommender(
        items=ItemTower(sources, tower.combine, tower.width),
        users=make_user_tower(users, length, tower.width, dtype),
        head=HEADS[config.head.name](
            num_items, config.head.temperature, config.head.bias
        ),
        late_fusion=FusionWeights(n) if (n := len(config.head.fusion)) else None,
        event_bias=EventBias() if config.head.event_bias else None,
        seen_bias=SeenBias() if config.head.seen_bias else None,
        repeat=RepeatEmbedding(init_scale) if users.repeats else None,
        ratings=RatingEmbedding() if users.ratings else None,
        objectives=make_objectives(config.loss),
        num_items=num_items,
        history_length=length,
        bidirectional=users.name in BIDIRECTIONAL,
        graph_layers=users.num_layers if users.name in USES_GRAPH else 0,
        reads_times=users.time,
    )
