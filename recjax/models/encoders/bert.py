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
import jax.numpy as jnp
from jax import Array

from recjax.models.layers.activations import ACTIVATIONS
from recjax.models.layers.attention import Attention
from recjax.models.layers.dropout import Dropout
from recjax.models.layers.pooling import pool_first


@dataclass(frozen=True)
class BertConfig:
    """Hyperparameters under BERT's names in `config.json`; see `base.EncoderConfig`.

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
        return self.max_position_embeddings - self.position_offset

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the submodules along the chain, in order."""
        layers = (f"layer_{i}" for i in range(self.num_hidden_layers))
        return "embeddings", *layers, "pool"

    @property
    def num_blocks(self) -> int:
        return len(self.block_names)

    def block_of(self, path: str) -> int:
        return self.block_names.index(path.split("/")[0])

    def with_lora(self, rank: int, alpha: float) -> "BertConfig":
        return dataclasses.replace(self, lora_rank=rank, lora_alpha=alpha)

    def make_encoder(self, dtype: Any = jnp.float32, remat_rows: int = 0) -> "Bert":
        return Bert(self, dtype, remat_rows)


def _init(config: BertConfig) -> nn.initializers.Initializer:
    """BERT's initializer of kernels and embeddings; biases are 0, norm scales 1."""
    return nn.initializers.normal(config.initializer_range)


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    config: BertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids_RxL: Array, position_RxL: Array, train: bool) -> Array:
        config = self.config
        width, init = config.hidden_size, _init(config)
        embed = partial(nn.Embed, features=width, dtype=self.dtype, embedding_init=init)
        x = embed(config.vocab_size, name="word")(ids_RxL)
        if config.type_vocab_size:
            # A single text per item needs one type only, but the pretrained vector of
            # type 0 is part of every input that the encoder has seen.
            x += embed(config.type_vocab_size, name="type")(jnp.zeros_like(ids_RxL))
        index_RxL = position_RxL + config.position_offset
        x += embed(config.max_position_embeddings, name="position")(index_RxL)
        x = nn.LayerNorm(config.layer_norm_eps, dtype=self.dtype, name="norm")(x)
        return Dropout(config.hidden_dropout_prob)(x, train)


class Layer(nn.Module):
    """Transformer layer: attention, then an MLP with one hidden layer, post-norm."""

    config: BertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_RxLxE: Array, mask_RxLxL: Array, train: bool) -> Array:
        config = self.config
        dropout: Callable[..., Array] = Dropout(config.hidden_dropout_prob)
        drop = partial(dropout, train=train)
        norm = partial(nn.LayerNorm, config.layer_norm_eps, dtype=self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_init(config))
        heads = config.num_attention_heads, config.attention_probs_dropout_prob
        lora = config.lora_rank, config.lora_alpha
        attention = Attention(
            *heads, self.dtype, _init(config), *lora, name="attention"
        )
        # Post-norm: the norm follows the residual sum.
        y = drop(attention(x_RxLxE, mask_RxLxL, train))
        x = norm(name="attention_norm")(x_RxLxE + y)
        y = dense(config.intermediate_size, name="mlp_up")(x)
        y = ACTIVATIONS[config.hidden_act](y)
        y = dense(config.hidden_size, name="mlp_down")(y)
        return norm(name="mlp_norm")(x + drop(y))


class Bert(nn.Module):
    """The chain of blocks; implements `base.Encoder`.

    Attributes:
      remat_rows: rows that run through the layers at a time, a divisor of their number
        in training, and are computed a second time in the backward pass, so that memory
        does not grow with the batch (Chen et al., Training deep nets with sublinear
        memory cost, 2016). 0 = all rows at once, every activation kept.
    """

    config: BertConfig
    dtype: Any = jnp.float32
    remat_rows: int = 0

    def setup(self) -> None:
        config = self.config
        self.embeddings = Embeddings(config, self.dtype)
        layers = range(config.num_hidden_layers)
        self.layer = [Layer(config, self.dtype) for _ in layers]
        # Flax creates parameters at the first call, so only if `pool_states` is used.
        self.pool = nn.Dense(
            config.hidden_size, dtype=self.dtype, kernel_init=_init(config)
        )

    def embed(self, ids_RxL: Array, position_RxL: Array, train: bool = False) -> Array:
        return self.embeddings(ids_RxL, position_RxL, train)

    def run(
        self,
        states_RxLxE: Array,
        segment_RxL: Array,
        start: int,
        stop: int,
        train: bool = False,
    ) -> Array:
        """Runs the blocks start .. stop - 1, all of them layers; see `base.Encoder`."""

        def run_rows(bert: Bert, _: None, rows: Any) -> tuple[None, Array]:
            states_RxLxE, segment_RxL = rows
            mask_RxLxL = segment_RxL[:, :, None] == segment_RxL[:, None, :]
            for layer in bert.layer[start - 1 : stop - 1]:  # block 0 is the embeddings
                states_RxLxE = layer(states_RxLxE, mask_RxLxL, train)
            return None, states_RxLxE

        rows = states_RxLxE.astype(self.dtype), segment_RxL
        piece = self.remat_rows
        if not train or not piece:
            return run_rows(self, None, rows)[1]
        # A piece takes every n-th row, not n neighbours: the mesh shards rows in
        # contiguous runs, so each device then owns a part of every piece.
        pieces = [x.reshape(piece, -1, *x.shape[1:]) for x in rows]
        scan = nn.scan(
            nn.remat(run_rows, prevent_cse=False),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        return scan(self, None, pieces)[1].reshape(states_RxLxE.shape)

    def pool_states(self, states_RxLxE: Array, packed: Any) -> Array:
        """Hugging Face's pooler: tanh of a dense layer on the first token's state."""
        return jnp.tanh(self.pool(pool_first(states_RxLxE, packed)))
