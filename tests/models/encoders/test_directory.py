"""Tests of the files of an encoder's directory."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recjax.common.errors import UserError
from recjax.models.encoders.directory import (
    INDEX,
    MODULES,
    TOKENIZER,
    WEIGHTS,
    companion_warnings,
    find_file,
    transformer_folder,
    weight_files,
    weights_digest,
    weights_version,
)
from recjax.models.encoders.huggingface import load_config, unused_weights
from tests.conftest import TINY_BERT
from tests.models.encoders.test_bert import load

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY_BERT, tmp_path / "encoder")


@pytest.fixture
def weights():
    return load_file(TINY_BERT / WEIGHTS)


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def split_weights(folder, weights):
    """Splits the weights into two files, with an index."""
    (folder / WEIGHTS).unlink()
    names = {}
    for i, part in enumerate((sorted(weights)[:7], sorted(weights)[7:])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        names |= dict.fromkeys(part, file)
    write(folder / INDEX, {"weight_map": names})


def test_weights_in_several_files_are_those_in_one(folder, weights):
    digest = weights_digest(folder)
    split_weights(folder, weights)
    assert len(weight_files(folder)) == 2
    assert weights_digest(folder) != digest
    _, params = load(folder)
    _, expected = load(TINY_BERT)
    np.testing.assert_equal(params, expected)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors: no such"):
        load(folder)
    write(folder / INDEX, {"weight_map": {"x": "../outside.safetensors"}})
    with pytest.raises(UserError, match="no weight_map with names of files"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (TOKENIZER, "vocab.txt"),
        (TOKENIZER, "vocab.json"),
        (WEIGHTS, "pytorch_model.bin"),
    ],
)
def test_files_of_another_format_are_named_with_the_remedy(folder, name, other):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file$"):
        find_file(folder, name)
    (folder / other).touch()
    with pytest.raises(UserError, match=f"no such file, but {other}; convert it") as e:
        find_file(folder, name)
    assert f".save_pretrained('{folder}')" in str(e.value)


def test_pointers_of_git_lfs_are_named(folder):
    for name in (WEIGHTS, "config.json"):
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid 1")
        with pytest.raises(
            UserError, match=f"{name}: is a pointer of Git LFS; run git"
        ):
            load(folder)


def test_files_that_are_not_regular_are_refused(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(
        UserError, match=r"config\.json: no such file|not a regular file"
    ):
        load_config(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"hidden_size": 1' + "0" * 5000 + "}", "not JSON"),
        ('{"model_type": "bert", "auto_map": {}}', "auto_map asks for code"),
        ("[]", "not a JSON object"),
        ('{"model_type": "bert"', "not JSON"),
    ],
)
def test_damaged_configs_are_one_line(folder, content, message):
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_config(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", -1e-12),
        ("hidden_dropout_prob", 5),
        ("attention_probs_dropout_prob", 1.0),
        ("num_hidden_layers", 1_000_000),
        ("vocab_size", 2**64),
        ("hidden_size", True),
    ],
)
def test_values_out_of_range_are_refused(folder, key, value):
    path = folder / "config.json"
    write(path, {**json.loads(path.read_text()), key: value})
    with pytest.raises(UserError, match=rf"config\.json: {key} "):
        load_config(folder)


def test_a_weight_with_two_values_is_refused(folder, weights):
    name = "pooler.dense.bias"
    save_file({**weights, f"bert.{name}": weights[name] + 1}, folder / WEIGHTS)
    with pytest.raises(UserError, match=rf"{name} is a second value of pool/bias"):
        load(folder)


def test_weights_that_are_integers_are_refused(folder, weights):
    weights["pooler.dense.bias"] = weights["pooler.dense.bias"].astype(np.int32)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(
        UserError, match=r"pooler\.dense\.bias has int32 values, not fl"
    ):
        load(folder)


def test_weights_that_are_replaced_have_another_version(folder, weights):
    before = weights_version(folder)
    assert weights_version(folder) == before
    save_file(weights, folder / "new")
    (folder / "new").replace(folder / WEIGHTS)
    assert weights_version(folder) != before


def test_the_encoder_of_an_older_sentence_transformers_directory(tmp_path, folder):
    kind = "sentence_transformers.models.Transformer"
    write(
        tmp_path / "st" / MODULES, [{"idx": 0, "type": kind, "path": "0_Transformer"}]
    )
    shutil.move(folder, tmp_path / "st" / "0_Transformer")
    found = transformer_folder(tmp_path / "st")
    assert found == tmp_path / "st" / "0_Transformer"
    load(found)
    write(tmp_path / "st" / MODULES, [{"type": kind, "path": "../encoder"}])
    with pytest.raises(UserError, match=r"'\.\./encoder' is outside of"):
        transformer_folder(tmp_path / "st")


def test_modules_that_are_not_applied_are_named(folder):
    assert companion_warnings(folder, "mean") == []
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [{"type": f"a.b.{kind}", "path": path} for path, kind in kinds.items()]
    write(folder / MODULES, modules)
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    dense = f"{folder}/modules.json: the module Dense of this encoder is not applied"
    assert companion_warnings(folder, "cls") == [dense]
    pooling, other = companion_warnings(folder, "mean")
    assert pooling.endswith("trained with cls pooling; item_tower.pooling is 'mean'")
    assert other == dense
    write(folder / MODULES, {"a": 1})
    with pytest.raises(UserError, match=r"modules\.json: not a JSON list"):
        companion_warnings(folder, "mean")


def test_the_head_of_a_fine_tuned_checkpoint_is_left_out(folder, weights):
    assert unused_weights(folder) == []
    head = {"classifier.weight": np.ones((2, 16), np.float32)}
    save_file({**weights, **head}, folder / WEIGHTS)
    load(folder)
    (note,) = unused_weights(folder)
    assert note == f"{folder}: the weights of classifier are not used"


def test_weights_in_half_precision_are_read(folder, weights):
    half = {name: value.astype(jnp.bfloat16) for name, value in weights.items()}
    save_file(half, folder / WEIGHTS)
    _, params = load(folder)
    for value in jax.tree.leaves(params):
        assert value.dtype == np.float32
