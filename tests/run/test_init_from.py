"""Runs that start from the parameters of another one."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

import recjax
from recjax.checkpointing.checkpoints import read_params
from recjax.common.errors import UserError
from recjax.config import base
from recjax.run import train
from tests import synthetic
from tests.conftest import TINY_BERT


@pytest.fixture
def first(config, tmp_path):
    """A run of ids and texts."""
    c = config.unlock()
    c.item_tower.sources, c.eval.baselines = ("id", "text"), ()
    c.report.save_model = True
    c.train.phases = (base.phase("p", epochs=2, lr=1e-2),)
    train.run(c.lock(), str(tmp_path / "first"))
    return tmp_path / "first"


def again(config, first, folder, **keys):
    c = config.copy_and_resolve_references().unlock()
    c.item_tower.sources, c.eval.baselines = ("id", "text"), ()
    c.report.save_model = True
    c.train.phases = (base.phase("p", epochs=1, lr=0.0),)
    c.train.init_from = str(first)
    c.update_from_flattened_dict(keys)
    final = train.run(c.lock(), str(folder))
    return final, read_params(folder)


def test_a_run_starts_where_the_other_one_ended(config, first, tmp_path, capsys):
    final, params = again(config, first, tmp_path / "second")
    for path, x in read_params(first).items():
        np.testing.assert_array_equal(x, params[path], err_msg=path)
    assert "0 of 25 items are new, 0 earlier ones are gone" in capsys.readouterr().out
    results = train.run(recjax_config(first), str(first))["test"]
    assert final["test"]["ndcg@10"] == results["ndcg@10"]


def test_items_that_were_added_to_a_model_are_not_gone(config, first, tmp_path, capsys):
    """They have no trained rows, so a run takes them as new ones."""
    model = recjax.load(first)
    folder = synthetic.write_atomic(tmp_path / "grown")
    path = folder / "grown.item"
    path.write_text(path.read_text() + "n1\tone two\tdrama\n")
    model.add_titled_items(["n1"], ["one two drama"], ["one two"])
    model.save_pretrained(tmp_path / "model")
    again(config, tmp_path / "model", tmp_path / "run", **{"data.source": str(folder)})
    assert "1 of 26 items are new, 0 earlier ones are gone" in capsys.readouterr().out


def recjax_config(folder):
    from recjax.config.load import load_json

    return load_json(folder / "config.json")


def test_the_catalogue_may_have_grown_and_changed_its_order(config, first, tmp_path):
    """Rows follow the ids of the items; a new item has the mean bias."""
    folder = synthetic.write_atomic(tmp_path / "grown")
    path = folder / "grown.item"
    header, *rows = path.read_text().splitlines()
    # One item, without events, is gone; one is new.
    new = "\t".join(["i99", *rows[0].split("\t")[1:]])
    path.write_text("\n".join([header, new, *reversed(rows)]) + "\n")
    _, params = again(
        config, first, tmp_path / "second", **{"data.source": str(folder)}
    )
    before = recjax.load(first)
    after = recjax.load(tmp_path / "second")
    assert after.items["id"].to_list() == ["i99", *reversed(before.items["id"])]
    for name in ("items/id/vectors/embedding", "head/bias"):
        old = before.parts.params[name]
        np.testing.assert_array_equal(params[name][1:], old[::-1])
    assert params["head/bias"][0] == pytest.approx(
        before.parts.params["head/bias"].mean()
    )
    want = before.recommend(histories=[["i1", "i2"]], k=5, among=before.items["id"])
    found = after.recommend(histories=[["i1", "i2"]], k=5, among=before.items["id"])
    assert found["item"].to_list() == want["item"].to_list()


def test_another_model_is_refused(config, first, tmp_path):
    with pytest.raises(
        UserError, match=r"^train\.init_from: .* has rows of shape \(8,\)"
    ):
        again(config, first, tmp_path / "a", **{"item_tower.width": 16})
    with pytest.raises(
        UserError, match="items/id/vectors/embedding is not in this model"
    ):
        again(config, first, tmp_path / "b", **{"item_tower.sources": ("text",)})
    with pytest.raises(UserError, match="no such directory"):
        again(config, tmp_path / "nowhere", tmp_path / "c")
    with pytest.raises(UserError, match="is not a model of recjax"):
        again(config, tmp_path, tmp_path / "d")


def test_a_changed_start_is_another_run(config, first, tmp_path):
    again(config, first, tmp_path / "second")
    (tmp_path / "second" / "results.json").unlink()
    model = recjax.load(first)
    model.add_items(pl.DataFrame({"item_id": ["n"], "title": ["one"], "genre": ["x"]}))
    model.save_pretrained(first / "model")
    with pytest.raises(UserError, match="initial: "):
        again(config, first, tmp_path / "second")


def test_an_encoder_with_another_tokenizer_is_refused(config, first, tmp_path):
    encoder = shutil.copytree(TINY_BERT, tmp_path / "encoder")
    path = encoder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    with pytest.raises(UserError, match="was trained with another tokenizer"):
        again(config, first, tmp_path / "second", **{"text.encoder": str(encoder)})


def test_the_encoder_before_training_is_named(config, first, tmp_path, capsys):
    """It is not the pretrained one."""
    final, _ = again(config, first, tmp_path / "second", **{"eval.zero_shot": True})
    assert final["initial"]
    assert "| zero-shot (train.init_from) " in capsys.readouterr().out
