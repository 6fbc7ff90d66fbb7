"""Tests of the tokens of item texts."""

import json

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from recjax.common.errors import UserError
from recjax.data.text.tokenize import tokenize
from recjax.reporting.data_report import text_warnings

pytestmark = pytest.mark.unit

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "Hello"]
WORDS += ["cafe", "caf\u00e9", "CAF\u00c9", "CAFE"]


@pytest.fixture
def folder(tmp_path):
    """A WordPiece tokenizer that makes letters small."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def run(folder, *texts):
    return tokenize(texts, folder, max_tokens=8, vocab_size=len(WORDS))


# The ids of `AutoTokenizer` in transformers 5.23 for the same directories.
@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        (None, [2, 5, 7, 3]),
        ({"tokenizer_class": "BertTokenizer", "do_lower_case": False}, [2, 6, 9, 3]),
        ({"tokenizer_class": "BertTokenizer", "do_lower_case": True}, [2, 5, 7, 3]),
        ({"do_lower_case": False, "strip_accents": True}, [2, 6, 10, 3]),
        (
            {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
            [2, 5, 7, 3],
        ),
    ],
)
def test_the_config_of_a_bert_tokenizer_decides_as_in_transformers(
    folder, settings, ids
):
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert run(folder, "Hello CAF\u00c9").ids.tolist() == ids


def test_a_damaged_config_of_a_tokenizer_is_named(folder):
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: not a JSON object"):
        run(folder, "Hello")


def test_unknown_tokens_and_equal_texts_are_counted(folder):
    tokens = run(folder, "hello cafe", "hello")
    assert (tokens.unknown_share, tokens.count_distinct()) == (0, 2)
    assert text_warnings(tokens) == []
    tokens = run(
        folder, "hello \u732b", "\u72ac \u732b", "\u732b \u72ac", "\u9ce5 \u9c7c"
    )
    assert tokens.unknown_share == 7 / 8
    assert tokens.count_distinct() == 2
    (warning,) = text_warnings(tokens)
    assert warning.startswith("88% of the tokens are not in the vocabulary")
    few = run(folder, *["hello"] * 4, "cafe")
    (warning,) = text_warnings(few)
    assert warning.startswith("the 5 items have only 2 different texts")
