"""The text encoder of a run, and the tokenised texts of its items."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recjax.config.validate_model import check_encoder
from recjax.data.ingest.sources import locate_encoder
from recjax.data.text.packing import Tokens
from recjax.data.text.tokenize import tokenize
from recjax.models.encoders.base import EncoderConfig
from recjax.models.encoders.directory import (
    TOKENIZER,
    companion_warnings,
    find_file,
    settings_digest,
    transformer_folder,
    weights_digest,
    weights_version,
)
from recjax.models.encoders.huggingface import load_config, unused_weights


class Text(NamedTuple):
    """The text encoder of a run, and the texts that it reads.

    Attributes:
      folder: directory of the encoder.
      encoder: static description of the encoder.
      tokens: the tokenised texts of all items.
      pretrained: digest of the weights; None if they are drawn at random.
      settings: digest of the config and the tokenizer.
      version: `weights_version` from before the digest was computed.
      warnings: settings in the directory that the config differs from.
    """

    folder: Path
    encoder: EncoderConfig
    tokens: Tokens
    pretrained: str | None
    settings: str
    version: list[Any]
    warnings: list[str]


def load_text(config: Any, texts: Sequence[str]) -> Text:
    """Reads the text encoder's description and tokenises the texts of all items.

    Raises:
      UserError: no such encoder, or one that does not support the config.
    """
    located = locate_encoder(config.text.encoder)
    folder = transformer_folder(located)
    settings = settings_digest(folder)
    encoder = load_config(folder)
    check_encoder(config, encoder)
    find_file(folder, TOKENIZER)
    tokens = tokenize(
        texts,
        folder,
        max_tokens=config.text.max_tokens,
        vocab_size=encoder.vocab_size,
    )
    digest, version = None, []
    warnings = companion_warnings(located, config.item_tower.pooling)
    if config.text.pretrained:
        version = weights_version(folder)
        digest = weights_digest(folder)
        warnings += unused_weights(folder)
    return Text(folder, encoder, tokens, digest, settings, version, warnings)
