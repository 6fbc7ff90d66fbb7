"""BERT, RoBERTa and DistilBERT against Hugging Face, and strict loading."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recjax.common import param_paths
from recjax.common.errors import UserError
from recjax.data.ingest import sources
from recjax.data.text.packing import Packing
from recjax.data.text.tokenize import tokenize
from recjax.models.encoders.huggingface import load_config, load_params
from recjax.models.layers.activations import ACTIVATIONS
from tests.conftest import TINY_BERT

FIXTURES = Path(__file__).parents[2] / "fixtures"
TEXTS = json.loads((FIXTURES / "texts.json").read_text())
TINY = ("tiny_bert", "tiny_roberta", "tiny_distilbert")


class FirstTokens(NamedTuple):
    first_U: np.ndarray


def encode(bert, ids_RxL, segment_RxL, pooler: bool = True):
    """One text a row: last states_RxLxE and, with the pooler, pooled_RxE."""
    num_rows, length = ids_RxL.shape
    position_RxL = jnp.broadcast_to(jnp.arange(length), ids_RxL.shape)
    states = bert.embed(ids_RxL, position_RxL)
    states = bert.run(states, segment_RxL, 1, bert.config.num_blocks - 1)
    if not pooler:
        return states, None
    first = FirstTokens(np.arange(num_rows) * length)
    return states, bert.pool_states(states, first)


def load(folder: Path, pooler: bool = True):
    bert = load_config(folder).make_encoder()
    ids = np.zeros((1, 2), np.int32)
    init = partial(bert.init, method=partial(encode, pooler=pooler))
    shapes = jax.eval_shape(init, jax.random.key(0), ids, ids + 1)["params"]
    flat = load_params(folder, param_paths.flatten_params(shapes))
    return bert, {"params": param_paths.unflatten_params(flat)}


def largest_difference(folder: Path, name: str) -> tuple[float, float]:
    expected = load_file(FIXTURES / f"{name}_expected.safetensors")
    pooler = "pooled_UxD" in expected
    bert, variables = load(folder, pooler)
    tokens = tokenize(TEXTS, folder, max_tokens=48, vocab_size=30522)
    longest = tokens.lengths.max()
    mask = np.arange(longest) < tokens.lengths[:, None]
    ids = np.zeros(mask.shape, np.int32)
    ids[mask] = tokens.ids
    apply = partial(bert.apply, method=partial(encode, pooler=pooler))
    states, pooled = jax.jit(apply)(variables, ids, mask.astype(np.int32))
    by_states = np.abs(np.asarray(states)[mask] - expected["states_TxD"]).max()
    by_pooled = 0.0
    if pooled is not None:
        by_pooled = np.abs(np.asarray(pooled) - expected["pooled_UxD"]).max()
    return float(by_states), float(by_pooled)


@pytest.mark.parametrize("name", TINY)
def test_tiny_encoders_equal_hf(name):
    states, pooled = largest_difference(FIXTURES / name, name)
    print(f"{name}: states {states:.2e}, pooled {pooled:.2e}")
    assert states < 2e-5
    assert pooled < 2e-5


def test_minilm_equals_hf():
    folder = sources.locate_encoder("all-MiniLM-L6-v2")
    states, pooled = largest_difference(folder, "minilm")
    print(f"MiniLM: states {states:.2e}, pooled {pooled:.2e}")
    assert states < 2e-5
    assert pooled < 2e-5


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("bfloat16", 0.03)])
@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("gelu", partial(jax.nn.gelu, approximate=False)),
        ("gelu_python", partial(jax.nn.gelu, approximate=False)),
        ("gelu_new", partial(jax.nn.gelu, approximate=True)),
        ("gelu_pytorch_tanh", partial(jax.nn.gelu, approximate=True)),
        ("relu", jax.nn.relu),
    ],
)
def test_activations_and_their_gradients_equal_jax(name, exact, dtype, atol):
    x = jnp.linspace(-6, 6, 242).astype(dtype)  # none is 0
    for f in (lambda f: f, lambda f: jax.vmap(jax.grad(f))):
        got, want = (f(g)(x).astype("float32") for g in (ACTIVATIONS[name], exact))
        np.testing.assert_allclose(got, want, atol=atol, rtol=atol)


@pytest.mark.parametrize("name", TINY)
def test_packed_rows_equal_one_text_a_row(name):
    folder = FIXTURES / name
    bert, variables = load(folder, pooler=False)
    tokens = tokenize(TEXTS, folder, max_tokens=48, vocab_size=30522)
    rows = np.arange(len(TEXTS), dtype=np.int32)
    p = Packing(tokens, 48).pack(rows)
    assert len(p.index_RxL) < len(TEXTS)  # something is shared

    def run(module, ids, position, segment):
        last = module.config.num_blocks - 1
        return module.run(module.embed(ids, position), segment, 1, last)

    ids = tokens.ids[p.index_RxL]
    states = bert.apply(variables, ids, p.position_RxL, p.segment_RxL, method=run)
    expected = load_file(FIXTURES / f"{name}_expected.safetensors")["states_TxD"]
    got = np.zeros_like(expected)
    filled = p.segment_RxL > 0
    got[p.index_RxL[filled]] = np.asarray(states)[filled]
    np.testing.assert_allclose(got, expected, atol=2e-5)


def broken(tmp_path: Path, change, encoder: Path = TINY_BERT) -> Path:
    folder = tmp_path / "encoder"
    shutil.copytree(encoder, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    return folder


def test_one_error_lists_every_wrong_weight(tmp_path):
    def change(w):
        del w["encoder.layer.1.output.dense.bias"]
        w["encoder.layer.7.output.dense.bias"] = np.zeros(16, np.float32)
        w["unheard.of"] = np.zeros(1, np.float32)
        w["pooler.dense.weight"] = np.zeros((16, 17), np.float32)

    with pytest.raises(UserError) as e:
        load(broken(tmp_path, change))
    message = str(e.value)
    assert "missing layer_1/mlp_down/bias" in message
    assert "extra encoder.layer.7.output.dense.bias" in message
    assert "extra unheard.of" in message
    assert "pooler.dense.weight has shape (16, 17), not (16, 16)" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    def change(w):
        w["pooler.dense.weight"] = np.full((16, 16), value, np.float32)

    with pytest.raises(UserError, match=r"pooler\.dense\.weight is not finite"):
        load(broken(tmp_path, change))


def test_every_model_type_is_as_strict(tmp_path):
    def change(w):
        del w["roberta.encoder.layer.1.output.dense.bias"]
        w["bert.pooler.dense.weight"] = np.zeros((16, 16), np.float32)
        w["roberta.embeddings.word_embeddings.weight"] = np.zeros((9, 16), np.float32)

    with pytest.raises(UserError) as e:
        load(broken(tmp_path / "roberta", change, FIXTURES / "tiny_roberta"))
    message = str(e.value)
    assert "missing layer_1/mlp_down/bias" in message
    assert "extra bert.pooler.dense.weight" in message
    assert "roberta.embeddings.word_embeddings.weight has shape (9, 16)" in message

    def change_distilbert(w):
        del w["distilbert.transformer.layer.2.sa_layer_norm.bias"]
        w["distilbert.pooler.dense.weight"] = np.zeros((16, 16), np.float32)

    folder = broken(
        tmp_path / "distilbert", change_distilbert, FIXTURES / "tiny_distilbert"
    )
    with pytest.raises(UserError) as e:
        load(folder, pooler=True)
    message = str(e.value)
    assert "missing layer_2/attention_norm/bias" in message
    assert "extra distilbert.pooler.dense.weight" in message
    assert "embeddings/type" not in message


def test_names_of_older_checkpoints_load(tmp_path):
    def change(w):
        for key in list(w):
            value = w.pop(key)
            old = key.replace("LayerNorm.weight", "LayerNorm.gamma")
            w["bert." + old.replace("LayerNorm.bias", "LayerNorm.beta")] = value
        w["cls.predictions.bias"] = np.zeros(3, np.float32)

    _, variables = load(broken(tmp_path, change))
    _, original = load(TINY_BERT)
    jax.tree.map(np.testing.assert_array_equal, variables, original)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "gpt2", "model_type 'gpt2' is not one of"),
        ("model_type", "xlm-roberta", "model_type 'xlm-roberta' is not one of"),
        ("model_type", ["bert"], r"model_type \['bert'\] is not one of"),
        ("auto_map", {"AutoModel": "x.py"}, "code that comes with the model"),
        ("hidden_act", "swish", "hidden_act 'swish' is not one of"),
        ("position_embedding_type", "relative_key", "only absolute position"),
        ("vocab_size", None, "vocab_size"),
    ],
)
def test_refused_configs(tmp_path, key, value, message):
    folder = broken(tmp_path, lambda w: None)
    raw = json.loads((folder / "config.json").read_text())
    raw[key] = value
    if value is None:
        del raw[key]
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=message):
        load(folder)


def test_truncated_weights_are_one_line(tmp_path):
    folder = broken(tmp_path, lambda w: None)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="unreadable"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "not a JSON object"),
        ({"num_attention_heads": 3}, "hidden_size 16 is not divisible by num_att"),
        ({"num_attention_heads": "two"}, "num_attention_heads 'two' is not of type"),
        ({"num_attention_heads": 0}, "num_attention_heads 0 is not from 1 to"),
        ({"layer_norm_eps": None}, "layer_norm_eps None is not of type float"),
    ],
)
def test_configs_that_fit_no_encoder(tmp_path, change, message):
    raw = json.loads((TINY_BERT / "config.json").read_text())
    raw = change if isinstance(change, list) else raw | change
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=message):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("roberta", {"pad_token_id": -1}, "pad_token_id -1 is not from 0 to"),
        ("roberta", {"pad_token_id": None}, "pad_token_id None is not of type int"),
        ("roberta", {"position_embedding_type": "relative_key"}, "only absolute"),
        ("distilbert", {"n_heads": 3}, "dim 16 is not divisible by n_heads 3"),
        ("distilbert", {"n_layers": 0}, "n_layers 0 is not from 1 to"),
        ("distilbert", {"activation": "swish"}, "activation 'swish' is not one of"),
        ("distilbert", {"auto_map": {}}, "code that comes with the model"),
        ("distilbert", {"model_type": "bert"}, "no hidden_size"),
    ],
)
def test_configs_of_other_types_that_fit_no_encoder(tmp_path, name, change, message):
    raw = json.loads((FIXTURES / f"tiny_{name}" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(UserError, match=message):
        load_config(tmp_path)


def test_long_texts_are_cut():
    """Truncation keeps the special tokens."""
    texts = ["one two three four five six seven eight", "one"]
    whole = tokenize(texts, TINY_BERT, max_tokens=48, vocab_size=10**6)
    cut = tokenize(texts, TINY_BERT, max_tokens=5, vocab_size=10**6)
    assert whole.lengths[0] > 5
    assert cut.lengths.tolist() == [5, whole.lengths[1]]
    np.testing.assert_array_equal(cut.ids[:4], whole.ids[:4])
    assert cut.ids[4] == whole.ids[whole.lengths[0] - 1]


def test_a_roberta_has_positions_for_less_than_its_table():
    assert load_config(FIXTURES / "tiny_roberta").max_tokens == 48
    assert load_config(TINY_BERT).max_tokens == 48


def test_a_tokenizer_of_another_vocabulary():
    with pytest.raises(UserError, match=r"has a token .* vocab_size 20$"):
        tokenize(TEXTS, TINY_BERT, max_tokens=48, vocab_size=20)
