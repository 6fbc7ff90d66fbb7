"""Item texts -> token ids, and several short texts packed into one row.

Item texts are short and uneven. Padding each to the longest would spend most of
the encoder's time on nothing, so texts share rows of `width` tokens, and a segment
number keeps each text's attention to itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from recjax.common.errors import UserError


@dataclass(frozen=True)
class Tokens:
    """Token ids of all N texts, one after another, and their N + 1 bounds."""

    ids: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, special tokens included."""
        return np.diff(self.offsets)


def tokenize(
    texts: Sequence[str], folder: Path, *, max_tokens: int, vocab_size: int
) -> Tokens:
    """Tokenises texts with the `tokenizer.json` of an encoder's directory.

    Args:
      texts: one per catalogue row.
      folder: directory with `tokenizer.json`.
      max_tokens: longer texts are cut, special tokens included.
      vocab_size: of the encoder.

    Raises:
      UserError: no readable file, or one with tokens that the encoder does not know.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the Rust library raises a bare Exception
        raise UserError(f"{path}: {e}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    lists = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])])
    flat = np.fromiter((i for ids in lists for i in ids), np.int32)
    if flat.max(initial=0) >= vocab_size:
        raise UserError(
            f"{path}: has a token {flat.max()}, but config.json beside it says "
            f"vocab_size {vocab_size}"
        )
    return Tokens(flat, offsets.astype(np.int64))
