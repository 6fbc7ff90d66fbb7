"""The model directory: complete, verified, and refused if it is damaged."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

import recjax
from recjax.common.errors import UserError
from recjax.common.files import file_sha256
from recjax.inference import golden
from recjax.inference.files import (
    CONFIG,
    GOLDEN,
    HISTORIES,
    ITEMS,
    MANIFEST,
    PARAMS,
    VECTORS,
)


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of the model directory."""
    return shutil.copytree(finished / "model", tmp_path / "model")


def sign(folder):
    """Writes the manifest again, as if the files were meant to be so."""
    path = folder / MANIFEST
    names = json.loads(path.read_text())
    path.write_text(json.dumps({name: file_sha256(folder / name) for name in names}))


def test_golden_lists_are_those_of_the_loaded_model(finished, model):
    """Bit by bit on the same machine, and there is one for every user."""
    lists = json.loads((finished / "model" / GOLDEN).read_text())
    assert len(lists) == min(golden.NUM_LISTS, len(model.users))
    assert golden.make(model) == lists


def test_saving_again_gives_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path / "again")
    again = recjax.load(tmp_path / "again")
    users = model.users
    assert again.recommend(users=users).equals(model.recommend(users=users))
    again.save_pretrained(tmp_path / "again")  # replaces it
    assert recjax.load(tmp_path / "again").users == users
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_all_files_are_as_readable_as_the_directory(finished):
    """A service often has another user than the training."""
    plain = (finished / "results.json").stat().st_mode
    files = [path for path in (finished / "model").rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {plain}


def test_it_needs_neither_the_run_nor_the_data(folder, atomic_dir, monkeypatch):
    monkeypatch.setenv("RECJAX_CACHE", str(folder.parent / "cache"))
    moved = folder.parent / "elsewhere"
    folder.rename(moved)
    model = recjax.load(moved)
    model.add_items({"new": "one"})
    assert len(model.recommend(users="all", k=2)) == 2 * len(model.users)


@pytest.mark.parametrize(
    "name", [CONFIG, PARAMS, VECTORS, ITEMS, GOLDEN, "encoder/tokenizer.json"]
)
def test_a_damaged_file_is_refused(folder, name):
    path = folder / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=f"{name}: has changed since it was saved"):
        recjax.load(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: is missing"):
        recjax.load(folder)


def test_weights_of_another_model_do_not_pass_the_golden_lists(folder):
    params = load_file(folder / PARAMS)
    kernel = params["head/bilinear/kernel"]
    params["head/bilinear/kernel"] = (
        kernel + 0.5 * np.eye(len(kernel), dtype="f4")[::-1]
    )
    save_file(params, folder / PARAMS)
    sign(folder)
    with pytest.raises(UserError, match="does not give the lists"):
        recjax.load(folder)


def change(folder, name, edit):
    """Edits one file of a model, and signs the manifest again."""
    path = folder / name
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        path.write_text(json.dumps(edit(content) or content))
    elif path.suffix == ".parquet":
        edit(pl.read_parquet(path)).write_parquet(path)
    else:
        tensors = load_file(path)
        edit(tensors)
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    sign(folder)


HOSTILE = {
    "golden lists of another shape": (GOLDEN, lambda x: [1]),
    "golden lists without items": (GOLDEN, lambda x: [{"history": ["i1"]}]),
    "no golden lists": (GOLDEN, lambda x: x.clear()),
    "a config that is a text": (CONFIG, lambda x: x.update(run={"data": "x"})),
    "an unknown user tower": (
        CONFIG,
        lambda x: x["run"]["user_tower"].update(name="__import__"),
    ),
    "a negative history": (
        CONFIG,
        lambda x: x["run"]["data"].update(history_length=-5),
    ),
    "no head": (PARAMS, lambda x: [x.pop(k) for k in list(x) if k.startswith("head")]),
    "a head of another shape": (
        PARAMS,
        lambda x: x.update({"head/bilinear/kernel": np.zeros((3, 5), "f4")}),
    ),
    "weights that are not finite": (
        PARAMS,
        lambda x: x["head/bilinear/kernel"].fill(np.nan),
    ),
    "narrow vectors": (VECTORS, lambda x: x.update(candidates=x["candidates"][:, :3])),
    "vectors that are not finite": (VECTORS, lambda x: x["candidates"].fill(np.nan)),
    "items without titles": (ITEMS, lambda x: x.drop("title")),
    "an item twice": (ITEMS, lambda x: x.with_columns(id=pl.lit("i1"))),
    "histories out of the catalogue": (
        HISTORIES,
        lambda x: x.with_columns(items=pl.lit([99999], dtype=pl.List(pl.Int32))),
    ),
    "histories of negative items": (
        HISTORIES,
        lambda x: x.with_columns(items=pl.lit([-3], dtype=pl.List(pl.Int32))),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_in_one_line(folder, name):
    """Whatever the manifest says."""
    change(folder, *HOSTILE[name])
    with pytest.raises(UserError) as e:
        recjax.load(folder)
    assert str(folder) in str(e.value)
    assert "\n" not in str(e.value)


def test_a_model_without_its_encoder_or_with_nul_bytes_is_refused(folder):
    names = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**names, "a\0b": "0"}))
    with pytest.raises(UserError, match="damaged; copy"):
        recjax.load(folder)
    shutil.rmtree(folder / "encoder")
    kept = {k: v for k, v in names.items() if not k.startswith("encoder/")}
    (folder / MANIFEST).write_text(json.dumps(kept))
    with pytest.raises(UserError, match="encoder: is missing"):
        recjax.load(folder)


def test_a_path_is_no_pattern(folder, finished):
    """Files are read from the directory that was named, not from one that matches."""
    named = folder.rename(folder.with_name("m[12]"))
    other = shutil.copytree(finished / "model", named.with_name("m1"))
    change(other, ITEMS, lambda x: x.with_columns(title=pl.lit("wrong")))
    assert "wrong" not in recjax.load(named).items["title"].to_list()


@pytest.mark.parametrize("name", ["webapp", "model and notes", "clone"])
def test_saving_does_not_delete_files_of_others(model, tmp_path, name):
    path = tmp_path / name
    if name == "webapp":
        path.mkdir()
        (path / "manifest.json").write_text("{}")
    else:
        model.save_pretrained(path)
    own = path / (".git/config" if name == "clone" else "notes.txt")
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    with pytest.raises(UserError, match="has other files than a model"):
        model.save_pretrained(path)
    assert own.read_text() == "mine"


def test_rounding_passes_the_golden_lists(folder):
    vectors = load_file(folder / VECTORS)
    vectors["candidates"] *= 1 + 1e-6
    vectors["history"] = vectors["candidates"]
    save_file(vectors, folder / VECTORS)
    sign(folder)
    recjax.load(folder)


def test_files_that_do_not_fit_each_other_are_refused(folder):
    vectors = load_file(folder / VECTORS)
    shorter = {
        k: v[:-1] if k in ("candidates", "bias") else v for k, v in vectors.items()
    }
    save_file(shorter, folder / VECTORS)
    sign(folder)
    with pytest.raises(UserError, match="numbers of items differ"):
        recjax.load(folder)
    save_file({}, folder / VECTORS)
    sign(folder)
    with pytest.raises(UserError, match="do not fit each other"):
        recjax.load(folder)


def test_hostile_manifests_and_formats_are_refused(folder):
    path = folder / MANIFEST
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "../secret": "0"}))
    with pytest.raises(UserError, match="is outside of the directory"):
        recjax.load(folder)
    path.write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        recjax.load(folder)
    path.write_text(json.dumps(content))
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "format": 99}))
    sign(folder)
    with pytest.raises(UserError, match="is of format 99"):
        recjax.load(folder)


def test_the_card_has_yaml_and_metrics(folder):
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: recjax\n")
    assert "| ndcg@10 | " in text


def test_an_unfinished_copy_is_refused(folder):
    (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match="is not a model of recjax"):
        recjax.load(folder)
