"""BERT, RoBERTa and DistilBERT with the numerics of Hugging Face's implementations.

Post-layer-norm, learned positions, token types, exact GELU (Devlin et al., 2019).
RoBERTa (Liu et al., 2019) starts its positions after the padding id, DistilBERT (Sanh
et al., 2019) has no token types and no pooler; dropout in training is BERT's in all
three.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.layers.activations import ACTIVATIONS
from recjax.models.layers.attention import Attention
from recjax.models.layers.dropout import Dropout
from recjax.models.layers.pooling import pool_first


@dataclass(frozen=True)
class BertConfig:
    """Hyperparameters of the encoder, under BERT's names in `config.json`.

    Implements `base.EncoderConfig`.

    Attributes:
      type_vocab_size: number of token types; 0 = none.
      position_offset: index of a text's first token in the position table.
      has_pooler: whether the model type has Hugging Face's pooler.
      lora_rank, lora_alpha: adapters, see `attention.Attention`; set by our config,
        absent from `config.json`.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    position_offset: int = 0
    has_pooler: bool = True
    lora_rank: int = 0
    lora_alpha: float = 1.0

    @property
    def max_tokens(self) -> int:
        """Length of the longest text that the position table covers."""
        return self.max_position_embeddings - self.position_offset

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the submodules along the chain, in order."""
        layers = (f"layer_{i}" for i in range(self.num_hidden_layers))
        return "embeddings", *layers, "pool"

    @property
    def num_blocks(self) -> int:
        """Embeddings, layers and pooling."""
        return len(self.block_names)

    def block_of(self, path: str) -> int:
        """Returns the block that owns the parameter at `path` of the encoder."""
        return self.block_names.index(path.split("/")[0])

    def with_lora(self, rank: int, alpha: float) -> "BertConfig":
        """Returns the same encoder with low-rank adapters; rank 0 adds none."""
        return dataclasses.replace(self, lora_rank=rank, lora_alpha=alpha)

    def make_encoder(self, dtype: Any = jnp.float32, remat_rows: int = 0) -> "Bert":
        """Builds the flax module."""
        return Bert(self, dtype, remat_rows)


def _init(config: BertConfig) -> nn.initializers.Initializer:
    """BERT's initializer of kernels and embeddings; biases are 0, norm scales 1."""
    return nn.initializers.normal(config.initializer_range)


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    config: BertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, ids_RxL: jax.Array, position_RxL: jax.Array, train: bool
    ) -> jax.Array:
        """Token ids -> states_RxLxE, all tokens of type 0."""
        config = self.config
        embed = partial(
            nn.Embed,
            features=config.hidden_size,
            dtype=self.dtype,
            embedding_init=_init(config),
        )
        x = embed(config.vocab_size, name="word")(ids_RxL)
        if config.type_vocab_size:
            # A single text per item needs one type only, but the pretrained vector of
            # type 0 is part of every input that the encoder has seen.
            x += embed(config.type_vocab_size, name="type")(jnp.zeros_like(ids_RxL))
        table_RxL = position_RxL + config.position_offset
        x += embed(config.max_position_embeddings, name="position")(table_RxL)
        x = nn.LayerNorm(config.layer_norm_eps, dtype=self.dtype, name="norm")(x)
        return Dropout(config.hidden_dropout_prob)(x, train)


class Layer(nn.Module):
    """Transformer layer: attention, then a two-layer perceptron, post-norm."""

    config: BertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_RxLxE: jax.Array, mask_RxLxL: jax.Array, train: bool
    ) -> jax.Array:
        """States in, states out; tokens attend only where the mask is True."""
        config = self.config
        dropout: Callable[..., jax.Array] = Dropout(config.hidden_dropout_prob)

        def drop(y: jax.Array) -> jax.Array:
            return dropout(y, train)

        norm = partial(nn.LayerNorm, config.layer_norm_eps, dtype=self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_init(config))
        attended = Attention(
            config.num_attention_heads,
            config.attention_probs_dropout_prob,
            self.dtype,
            _init(config),
            config.lora_rank,
            config.lora_alpha,
            name="attention",
        )(x_RxLxE, mask_RxLxL, train)
        # Post-norm: the residual is added before the norm, not around it.
        x = norm(name="attention_norm")(x_RxLxE + drop(attended))
        y = dense(config.intermediate_size, name="mlp_up")(x)
        y = ACTIVATIONS[config.hidden_act](y)
        y = dense(config.hidden_size, name="mlp_down")(y)
        return norm(name="mlp_norm")(x + drop(y))


class Bert(nn.Module):
    """The chain of blocks; implements `base.Encoder`.

    Attributes:
      remat_rows: number of rows that run through the layers at a time and are computed
        a second time in the backward pass, so that memory does not grow with the
        batch (Chen et al., Training deep nets with sublinear memory cost, 2016). In
        training the number of rows has to be a multiple of it. 0 = all rows at once,
        every activation kept.
    """

    config: BertConfig
    dtype: Any = jnp.float32
    remat_rows: int = 0

    def setup(self) -> None:
        config = self.config
        self.embeddings = Embeddings(config, self.dtype)
        self.layer = [
            Layer(config, self.dtype) for _ in range(config.num_hidden_layers)
        ]
        # Flax creates parameters at the first call: without `pool_states`, none.
        self.pool = nn.Dense(
            config.hidden_size, dtype=self.dtype, kernel_init=_init(config)
        )

    def embed(
        self, ids_RxL: jax.Array, position_RxL: jax.Array, train: bool = False
    ) -> jax.Array:
        """Runs block 0: token ids -> states_RxLxE."""
        return self.embeddings(ids_RxL, position_RxL, train)

    def run(
        self,
        states_RxLxE: jax.Array,
        segment_RxL: jax.Array,
        start: int,
        stop: int,
        train: bool = False,
    ) -> jax.Array:
        """Runs the blocks start .. stop - 1, all of them layers; see `base.Encoder`."""
        states_RxLxE = states_RxLxE.astype(self.dtype)
        piece = self.remat_rows
        if not train or not piece:
            return self._run(states_RxLxE, segment_RxL, start, stop, train)

        def run_piece(bert: Bert, _: None, rows: Any) -> tuple[None, jax.Array]:
            states_RxLxE, segment_RxL = rows
            return None, bert._run(states_RxLxE, segment_RxL, start, stop, train)

        # A piece takes every n-th row, not n neighbours: the mesh shards rows in
        # contiguous runs, so each device then owns a part of every piece.
        pieces = jax.tree.map(
            lambda x: x.reshape(piece, -1, *x.shape[1:]), (states_RxLxE, segment_RxL)
        )
        scan = nn.scan(
            nn.remat(run_piece, prevent_cse=False),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        return scan(self, None, pieces)[1].reshape(states_RxLxE.shape)

    def _run(
        self,
        states_RxLxE: jax.Array,
        segment_RxL: jax.Array,
        start: int,
        stop: int,
        train: bool,
    ) -> jax.Array:
        mask_RxLxL = segment_RxL[:, :, None] == segment_RxL[:, None, :]
        for layer in self.layer[start - 1 : stop - 1]:  # block 0 is the embeddings
            states_RxLxE = layer(states_RxLxE, mask_RxLxL, train)
        return states_RxLxE

    def pool_states(self, states_RxLxE: jax.Array, packed: Any) -> jax.Array:
        """Hugging Face's pooler: tanh of a dense layer on the first token's state."""
        return jnp.tanh(self.pool(pool_first(states_RxLxE, packed)))
