"""Exported towers and encoders compute what the model computes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

import recjax
from recjax.common.errors import UserError
from recjax.config import base
from recjax.data.batching.times import pad_times
from recjax.data.padding import pad_left
from recjax.data.text.tokenize import tokenize
from recjax.export import onnx, sentence_transformers, stablehlo
from recjax.inference.model import Model
from recjax.models.encoders.huggingface import load_config
from recjax.models.users import USER_TOWERS
from recjax.run import train
from tests.conftest import TINY_BERT, train_ids_model

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
# Whitening over 25 items divides by deviations of about a thousandth.
WHITENED = {"rtol": 1e-2, "atol": 1e-3}
NOT_CONVERTED = {"additive", "cnn", "gru"}  # by jax2onnx 0.17


def without_whitening(model):
    return Model(replace(model.parts, whitening=None))


def texts_as_arrays(model, texts):
    """Token ids and mask, as an exported item tower reads them."""
    length = model.parts.config.text.max_tokens
    size = load_config(model.parts.encoder).vocab_size
    tokens = tokenize(texts, model.parts.encoder, max_tokens=length, vocab_size=size)
    ids = np.zeros((len(texts), length), np.int32)
    mask = np.zeros((len(texts), length), bool)
    for row in range(len(texts)):
        start, end = tokens.offsets[row : row + 2]
        ids[row, : end - start] = tokens.ids[start:end]
        mask[row, : end - start] = True
    return ids, mask


def histories_as_arrays(model, users):
    """Vectors of the histories' items, and mask, for an exported user tower."""
    length = model.parts.config.data.history_length
    rows = [model.ids.history(user)[-length:] for user in users]
    rows_BxH, mask_BxH = pad_left(rows, (len(rows), length))
    return model.parts.vectors.history_NxD[rows_BxH], mask_BxH


def check_towers(model, users_tower, items_tower, number, tolerance):
    texts = model.items["text"].to_list()[:number]
    found = items_tower(*texts_as_arrays(model, texts))
    want = model.item_encoder.encode(texts)
    vectors = want.candidates_NxD, want.history_NxD, want.bias_N
    for one, other in zip(found, vectors, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)
    users = model.users[:number]
    queries = np.asarray(users_tower(*histories_as_arrays(model, users)))
    own = model.parts.vectors
    scores = queries @ own.candidates_NxD.T + own.bias_N
    histories = [model.ids.history(user) for user in users]
    fused = np.zeros_like(model.fused_scores(histories))
    np.testing.assert_allclose(
        scores, model._ranker.scores(histories, fused), **TOLERANCE
    )


def test_a_user_tower_that_reads_times_takes_them(timed, tmp_path):
    pytest.importorskip("flatbuffers")
    model = recjax.load(timed)
    stablehlo.export_towers(model.parts, tmp_path)
    tower = stablehlo.load_tower(tmp_path / "user_tower.stablehlo")
    users = model.users[:3]
    times = [model.ids.history_times(user)[-6:] for user in users]
    arrays = *histories_as_arrays(model, users), pad_times(times, (3, 6))
    own = model.parts.vectors
    scores = np.asarray(tower(*arrays)) @ own.candidates_NxD.T + own.bias_N
    want = model.score(items=model.items["id"].to_list(), users=users)
    np.testing.assert_allclose(scores, want, **TOLERANCE)


@pytest.mark.parametrize("whitened", [False, True])
def test_stablehlo_takes_any_batch(model, tmp_path, whitened):
    model = model if whitened else without_whitening(model)
    pytest.importorskip("flatbuffers")
    stablehlo.export_towers(model.parts, tmp_path)
    towers = [
        stablehlo.load_tower(tmp_path / f"{name}.stablehlo")
        for name in (stablehlo.USERS, stablehlo.ITEMS)
    ]
    for number in (1, 3):
        check_towers(model, *towers, number, WHITENED if whitened else TOLERANCE)


@pytest.mark.parametrize("whitened", [False, True])
def test_onnx_runs_in_onnx_runtime(model, tmp_path, whitened):
    model = model if whitened else without_whitening(model)
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    files = onnx.export_towers(model.parts, tmp_path, batch=2)

    def load(path):
        session = runtime.InferenceSession(str(path))
        names = [each.name for each in session.get_inputs()]
        return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))

    users, items = map(load, files)
    tolerance = WHITENED if whitened else TOLERANCE
    check_towers(model, lambda *arrays: users(*arrays)[0], items, 2, tolerance)
    vectors, mask = histories_as_arrays(model, model.users[:7])  # any number of users
    want = np.concatenate(
        [users(vectors[i : i + 1], mask[i : i + 1])[0] for i in range(7)]
    )
    np.testing.assert_allclose(users(vectors, mask)[0], want, **TOLERANCE)


@pytest.mark.parametrize("name", sorted(USER_TOWERS))
def test_onnx_has_other_user_towers(config, tmp_path, name):
    """A tower that cannot be converted is an error, and leaves no file."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    keys = {"user_tower.name": name}
    model = train_ids_model(config, tmp_path / "run", **keys)
    if name in NOT_CONVERTED:
        with pytest.raises(UserError, match="cannot convert the user_tower"):
            onnx.export_towers(model.parts, tmp_path, batch=5)
        assert not [*tmp_path.glob("*.onnx")]
        return
    (path,) = onnx.export_towers(model.parts, tmp_path, batch=1)
    session = runtime.InferenceSession(str(path))
    vectors, mask = histories_as_arrays(model, model.users[:5])
    queries = session.run(None, {"history_vectors": vectors, "mask": mask})[0]
    own = model.parts.vectors
    scores = queries @ own.candidates_NxD.T + own.bias_N
    histories = [model.ids.history(user) for user in model.users[:5]]
    np.testing.assert_allclose(scores, model._ranker.scores(histories), **TOLERANCE)


def test_an_encoder_goes_back_to_its_files(model, tmp_path):
    """A frozen encoder has the weights of the file that it was read from."""
    sentence_transformers.export_encoder(model.parts, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    want = load_file(TINY_BERT / "model.safetensors")
    for name, weight in found.items():
        np.testing.assert_array_equal(weight, want[name], err_msg=name)
    assert not [n for n in set(want) - set(found) if "pooler" not in n]
    pooling = json.loads((tmp_path / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"]
    assert pooling["word_embedding_dimension"] == 16


@pytest.mark.parametrize(("rank", "pooling"), [(0, "cls"), (2, "mean"), (0, "mean")])
def test_sentence_transformers_reads_a_fine_tuned_encoder(
    config, tmp_path, rank, pooling
):
    library = pytest.importorskip("sentence_transformers")
    c = config.unlock()
    c.item_tower.pooling, c.text.lora_rank, c.eval.baselines = pooling, rank, ()
    c.report.save_model = True
    rules = base.freeze(1, layers=3)
    c.train.phases = (base.phase("top", epochs=1, lr=1e-2, lr_mults=rules),)
    train.run(c.lock(), str(tmp_path / "run"))
    model = recjax.load(tmp_path / "run")
    sentence_transformers.export_encoder(model.parts, tmp_path / "encoder")
    loaded = library.SentenceTransformer(str(tmp_path / "encoder"), device="cpu")
    texts = model.items["text"].to_list()
    np.testing.assert_allclose(
        loaded.encode(texts), model.item_encoder.text_vectors(texts), **TOLERANCE
    )


def test_what_cannot_be_exported_is_named(config, tmp_path):
    keys = {"user_tower.repeats": True}
    parts = train_ids_model(config, tmp_path / "run", **keys).parts
    with pytest.raises(UserError, match="reads ids, and its user tower"):
        stablehlo.export_towers(parts, tmp_path)
    with pytest.raises(UserError, match="has no text encoder"):
        sentence_transformers.export_encoder(parts, tmp_path)
