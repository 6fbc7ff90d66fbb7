"""BERT encoder with the numerics of Hugging Face's `BertModel`, and of its kin.

Post-layer-norm, learned positions, token types, exact gelu (Devlin et al., 2019).
RoBERTa (Liu et al., 2019) counts positions from elsewhere, DistilBERT (Sanh et al.,
2019) has no token types and no pooler; dropout in training is BERT's in all three.
The encoder is a chain of blocks, `embed -> layer_0 .. layer_n-1`, each callable
alone: a frozen prefix of the chain is computed once per item and never again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.layers.attention import Attention
from recjax.models.layers.dropout import Dropout


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Exact gelu; jax's own, written for every precision, costs more on a CPU."""
    return (0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))).astype(x.dtype)


def _gelu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x), x


def _gelu_bwd(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    slope = 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))) + x * density
    return ((grad * slope).astype(x.dtype),)


gelu.defvjp(_gelu_fwd, _gelu_bwd)

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


@dataclass(frozen=True)
class BertConfig:
    """What decides the computation, under BERT's names in `config.json`.

    Attributes:
      type_vocab_size: token types; 0 = none.
      position_offset: place of a text's first token in the table of positions.
      has_pooler: whether the model type has HF's pooler.
      lora_rank: see `attention.Attention`, as `lora_alpha`; of our config, not of HF's.
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
        """Longest text that there are positions for."""
        return self.max_position_embeddings - self.position_offset


def _init(config: BertConfig) -> nn.initializers.Initializer:
    """How BERT draws kernels and embeddings; biases are 0, scales of norms 1."""
    return nn.initializers.normal(config.initializer_range)


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    config: BertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        ids_RxL: jax.Array,
        position_RxL: jax.Array,
        type_RxL: jax.Array | None,
        train: bool,
    ) -> jax.Array:
        """Token ids -> states_RxLxE. No token types means all are of type 0."""
        c = self.config
        embed = partial(
            nn.Embed,
            features=c.hidden_size,
            dtype=self.dtype,
            embedding_init=_init(c),
        )
        if type_RxL is None:
            type_RxL = jnp.zeros_like(ids_RxL)
        x = embed(c.vocab_size, name="word")(ids_RxL)
        if c.type_vocab_size:
            x += embed(c.type_vocab_size, name="type")(type_RxL)
        place_RxL = position_RxL + c.position_offset
        x += embed(c.max_position_embeddings, name="position")(place_RxL)
        x = nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="norm")(x)
        return Dropout(c.hidden_dropout_prob)(x, train)


class Layer(nn.Module):
    """One transformer layer: attention, then a two-layer perceptron, post-norm."""

    config: BertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_RxLxE: jax.Array, mask_RxLxL: jax.Array, train: bool
    ) -> jax.Array:
        """States in, states out; attention only where the mask is True."""
        c = self.config
        dropout: Callable[..., jax.Array] = Dropout(c.hidden_dropout_prob)

        def drop(y: jax.Array) -> jax.Array:
            return dropout(y, train)

        norm = partial(nn.LayerNorm, c.layer_norm_eps, dtype=self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_init(c))
        attended = Attention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            self.dtype,
            _init(c),
            c.lora_rank,
            c.lora_alpha,
            name="attention",
        )(x_RxLxE, mask_RxLxL, train)
        x = norm(name="attention_norm")(x_RxLxE + drop(attended))
        y = dense(c.intermediate_size, name="mlp_up")(x)
        y = ACTIVATIONS[c.hidden_act](y)
        y = dense(c.hidden_size, name="mlp_down")(y)
        return norm(name="mlp_norm")(x + drop(y))


class Bert(nn.Module):
    """The encoder as a chain of 1 + num_hidden_layers blocks.

    Attributes:
      pooler: whether HF's pooler (dense and tanh on the first token) is part of it.
      remat_rows: so many rows run through the layers at a time, and again in the
        backward pass, so that memory does not grow with the number of rows, which is
        a multiple of it in training. 0: all at once, and every state is kept.
    """

    config: BertConfig
    dtype: Any = jnp.float32
    pooler: bool = False
    remat_rows: int = 0

    def setup(self) -> None:
        c = self.config
        self.embeddings = Embeddings(c, self.dtype)
        self.layer = [Layer(c, self.dtype) for _ in range(c.num_hidden_layers)]
        if self.pooler:
            self.pool = nn.Dense(c.hidden_size, dtype=self.dtype, kernel_init=_init(c))

    def embed(
        self,
        ids_RxL: jax.Array,
        position_RxL: jax.Array,
        type_RxL: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Block 0: token ids -> states_RxLxE."""
        return self.embeddings(ids_RxL, position_RxL, type_RxL, train)

    def run_layers(
        self,
        x_RxLxE: jax.Array,
        segment_RxL: jax.Array,
        start: int = 0,
        stop: int | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Layers start .. stop-1: states in, states out.

        Tokens attend to tokens with the same segment number only, so that a row may
        hold several texts; 0 marks padding.
        """
        x_RxLxE = x_RxLxE.astype(self.dtype)
        piece = self.remat_rows
        if not train or not piece:
            return self._run(x_RxLxE, segment_RxL, start, stop, train)

        def run_piece(bert: Bert, _: None, rows: Any) -> tuple[None, jax.Array]:
            x_RxLxE, segment_RxL = rows
            return None, bert._run(x_RxLxE, segment_RxL, start, stop, train)

        # Every n-th row, so that a mesh splits each piece and not the pieces.
        pieces = jax.tree.map(
            lambda x: x.reshape(piece, -1, *x.shape[1:]), (x_RxLxE, segment_RxL)
        )
        scan = nn.scan(
            nn.remat(run_piece, prevent_cse=False),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        return scan(self, None, pieces)[1].reshape(x_RxLxE.shape)

    def _run(
        self,
        x_RxLxE: jax.Array,
        segment_RxL: jax.Array,
        start: int,
        stop: int | None,
        train: bool,
    ) -> jax.Array:
        mask_RxLxL = segment_RxL[:, :, None] == segment_RxL[:, None, :]
        for layer in self.layer[start:stop]:
            x_RxLxE = layer(x_RxLxE, mask_RxLxL, train)
        return x_RxLxE

    def pool_first(self, first_UxE: jax.Array) -> jax.Array:
        """HF's pooled output of the first tokens' states."""
        return jnp.tanh(self.pool(first_UxE))

    def __call__(
        self,
        ids_RxL: jax.Array,
        segment_RxL: jax.Array,
        type_RxL: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """One text a row: last hidden states_RxLxE, and pooled_RxE or None."""
        position_RxL = jnp.broadcast_to(jnp.arange(ids_RxL.shape[1]), ids_RxL.shape)
        x = self.embed(ids_RxL, position_RxL, type_RxL, train)
        x = self.run_layers(x, segment_RxL, train=train)
        return x, self.pool_first(x[:, 0]) if self.pooler else None
