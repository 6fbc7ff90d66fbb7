"""BERT encoder with the numerics of Hugging Face's `BertModel`.

Post-layer-norm, learned positions, token types, exact gelu (Devlin et al., 2019).
The encoder is a chain of blocks, `embed -> layer_0 .. layer_n-1`, each callable
alone: a frozen prefix of the chain is computed once per item and never again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.models.attention import Attention
from recjax.models.dropout import Dropout

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


@dataclass(frozen=True)
class BertConfig:
    """The keys of a BERT `config.json` that decide the computation."""

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
            embedding_init=nn.initializers.normal(c.initializer_range),
        )
        if type_RxL is None:
            type_RxL = jnp.zeros_like(ids_RxL)
        x = embed(c.vocab_size, name="word")(ids_RxL)
        x += embed(c.type_vocab_size, name="type")(type_RxL)
        x += embed(c.max_position_embeddings, name="position")(position_RxL)
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
        attended = Attention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            self.dtype,
            name="attention",
        )(x_RxLxE, mask_RxLxL, train)
        x = norm(name="attention_norm")(x_RxLxE + drop(attended))
        y = nn.Dense(c.intermediate_size, dtype=self.dtype, name="mlp_up")(x)
        y = ACTIVATIONS[c.hidden_act](y)
        y = nn.Dense(c.hidden_size, dtype=self.dtype, name="mlp_down")(y)
        return norm(name="mlp_norm")(x + drop(y))


class Bert(nn.Module):
    """The encoder as a chain of 1 + num_hidden_layers blocks.

    Attributes:
      pooler: whether HF's pooler (dense and tanh on the first token) is part of it.
    """

    config: BertConfig
    dtype: Any = jnp.float32
    pooler: bool = False

    def setup(self) -> None:
        c = self.config
        self.embeddings = Embeddings(c, self.dtype)
        self.layer = [Layer(c, self.dtype) for _ in range(c.num_hidden_layers)]
        if self.pooler:
            self.pool = nn.Dense(c.hidden_size, dtype=self.dtype)

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
        mask_RxLxL = segment_RxL[:, :, None] == segment_RxL[:, None, :]
        x_RxLxE = x_RxLxE.astype(self.dtype)
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
