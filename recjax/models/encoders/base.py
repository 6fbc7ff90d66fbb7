"""The interface that every pretrained text encoder implements.

An encoder is a chain of blocks with one numbering everywhere: block 0 is the
embeddings, blocks 1 .. n are the n layers and block n + 1, the last, pools a text's
token states into one vector. Freezing, the cache of a frozen prefix and the checks of a
config use these numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jax import Array

# One entry per module: the regex of its name in the file, our path (with {} for the
# regex's group), and the names of its arrays in the file -> ours.
Weights = tuple[tuple[str, str, dict[str, str]], ...]


class EncoderConfig(Protocol):
    """The static description of an encoder; a frozen, hashable dataclass.

    Attributes:
      hidden_size: E, the width of the token states.
      max_tokens: length of the longest text that the encoder can read.
      has_pooler: whether the files have weights for `Encoder.pool_states`.
      num_blocks: length of the chain, embeddings and pooling included.
    """

    # Properties, because the attributes of a frozen dataclass cannot be set.
    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def has_pooler(self) -> bool: ...
    @property
    def num_blocks(self) -> int: ...

    def block_of(self, path: str) -> int:
        """Returns the block that owns a parameter; the path starts at the encoder."""

    def with_lora(self, rank: int, alpha: float) -> "EncoderConfig":
        """Returns the same encoder with low-rank adapters; rank 0 adds none."""

    def make_encoder(self, dtype: Any, remat_rows: int) -> "Encoder":
        """Builds the flax module; `remat_rows` as in `bert.Bert`."""


class Encoder(Protocol):
    """The computation of an encoder, a flax module that calls its blocks separately."""

    @property
    def config(self) -> EncoderConfig: ...

    def embed(self, ids_RxL: Array, position_RxL: Array, train: bool = False) -> Array:
        """Runs block 0: token ids -> states_RxLxE."""

    def run(
        self,
        states_RxLxE: Array,
        segment_RxL: Array,
        start: int,
        stop: int,
        train: bool = False,
    ) -> Array:
        """Runs the blocks start .. stop - 1, which are layers: states in, states out.

        Tokens attend to tokens with the same segment number only, so that a row may
        hold several texts; 0 marks padding.
        """

    def pool_states(self, states_RxLxE: Array, packed: Any) -> Array:
        """Runs the last block with the encoder's own pooler: pooled_UxE."""


@dataclass(frozen=True)
class ModelType:
    """How to read the files of one Hugging Face model type.

    Attributes:
      read_config: path and content of `config.json` -> the encoder's config. Raises a
        `UserError` for content that the encoder cannot represent.
      weights: keys of the file, without the prefix, and our paths.
      prefix: start of the keys in files that also hold the pretraining task's head.
      ignored: regex over the keys of buffers and of such heads.
    """

    read_config: Callable[[Path, dict[str, Any]], EncoderConfig]
    weights: Weights
    prefix: str
    ignored: str
