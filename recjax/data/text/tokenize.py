"""Tokenises item texts with the tokenizer of a pretrained encoder."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers.normalizers import BertNormalizer

from recjax.common.errors import UserError
from recjax.common.files import read_bytes, read_json
from recjax.data.text.packing import Tokens


def tokenize(
    texts: Sequence[str], folder: Path, *, max_tokens: int, vocab_size: int
) -> Tokens:
    """Tokenises texts once, see `TextTokenizer`."""
    return TextTokenizer(folder, max_tokens=max_tokens, vocab_size=vocab_size)(texts)


class TextTokenizer:
    """The tokenizer of an encoder's directory, read once.

    Args:
      folder: directory with `tokenizer.json`.
      max_tokens: longer texts are truncated to it, special tokens included.
      vocab_size: of the encoder.

    Raises:
      UserError: `tokenizer.json` is missing or unreadable.
    """

    def __init__(self, folder: Path, *, max_tokens: int, vocab_size: int):
        self._path, self._vocab_size = folder / "tokenizer.json", vocab_size
        content = read_bytes(self._path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as e:  # the Rust library raises a bare Exception
            raise UserError(f"{self._path}: {e}") from None
        _apply_config(self._tokenizer, folder / "tokenizer_config.json")
        # The file may ask for padding; here texts are packed without it.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._unknown = _unknown_id(self._tokenizer)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenises texts.

        Raises:
          UserError: a token is not in the encoder's vocabulary.
        """
        try:
            encodings = self._tokenizer.encode_batch(list(texts))
        except Exception as e:  # such as an unknown token that is not in the vocabulary
            raise UserError(f"{self._path}: cannot tokenise the texts: {e}") from None
        lists = [encoding.ids for encoding in encodings]
        offsets = np.append(0, np.cumsum([len(ids) for ids in lists]))
        ids = np.fromiter(itertools.chain.from_iterable(lists), np.int32)
        if (largest := ids.max(initial=0)) >= self._vocab_size:
            raise UserError(
                f"{self._path}: has a token {largest}, but config.json in the same "
                f"directory gives vocab_size {self._vocab_size}"
            )
        # Special tokens, such as [CLS], are in every text and never unknown.
        special = [encoding.special_tokens_mask for encoding in encodings]
        ordinary = np.fromiter(itertools.chain.from_iterable(special), np.int8) == 0
        unknown = (ids == self._unknown) & ordinary
        share = unknown.sum() / max(ordinary.sum(), 1)
        return Tokens(ids, offsets.astype(np.int64), float(share))


def _apply_config(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """Applies the settings of BERT's tokenizer that a file of transformers overrides.

    transformers builds the normalizer of its BERT tokenizers from this file, whatever
    `tokenizer.json` says.

    Raises:
      UserError: the file is damaged.
    """
    normalizer = tokenizer.normalizer
    if not path.is_file() or not isinstance(normalizer, BertNormalizer):
        return
    settings = read_json(path)
    if "Bert" not in str(settings.get("tokenizer_class", "BertTokenizer")):
        return
    names = {
        "lowercase": "do_lower_case",
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    for ours, theirs in names.items():
        if isinstance(value := settings.get(theirs), bool):
            setattr(normalizer, ours, value)
    tokenizer.normalizer = normalizer


def _unknown_id(tokenizer: tokenizers.Tokenizer) -> int:
    """Returns the id of the token that replaces unknown text; -1 if there is none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    token = model.get("unk_token")
    found = None if token is None else tokenizer.token_to_id(token)
    return -1 if found is None else found
