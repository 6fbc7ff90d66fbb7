"""Models whose files fit their manifest, and which would break whoever uses them."""

import json
import os
import re
import shutil

import polars as pl
import pytest

import recjax
from recjax.common.errors import UserError
from recjax.inference.files import (
    CARD,
    CONFIG,
    GOLDEN,
    HISTORIES,
    ITEMS,
    MANIFEST,
    VECTORS,
    load_parts,
)
from tests.inference.test_files import change


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of the model directory."""
    return shutil.copytree(finished / "model", tmp_path / "model")


def about(**entries):
    return CONFIG, lambda x: x["about"].update(entries)


def with_lists(*lists):
    """Makes the first histories others, or as many as there are lists, then repeats."""

    def edit(frame):
        rows = [lists[i % len(lists)] for i in range(len(frame))]
        return frame.with_columns(items=pl.Series(rows, dtype=pl.List(pl.Int32)))

    return HISTORIES, edit


def null_in(column):
    """Makes the first value of a column missing."""
    first = pl.int_range(pl.len()) == 0
    edit = pl.when(~first).then(pl.col(column)).alias(column)
    return ITEMS, lambda x: x.with_columns(edit)


HOSTILE = {
    "a huge cursor": (*about(cursor=10**40), "about.cursor is 1000"),
    "a negative cursor": (*about(cursor=-1), "about.cursor is -1"),
    "a cursor of text": (*about(cursor="abc"), "about.cursor is 'abc'"),
    "a cursor that is true": (*about(cursor=True), "about.cursor is True"),
    "a cursor with a fraction": (*about(cursor=1.5), "about.cursor is 1.5"),
    "no cursor": (*about(cursor=None), "about.cursor is None"),
    "a store of another type": (*about(store=7), "about.store is 7"),
    "a store that is no number": (*about(store="x y"), "about.store is 'x y'"),
    "a long store": (*about(store="a" * 65), "about.store is 'aaa"),
    "metrics of text": (*about(metrics={"hr@10": "0.5"}), "about.metrics has other"),
    "metrics in a list": (*about(metrics=[]), "about.metrics has other"),
    "metrics that are not finite": (
        *about(metrics={"x": {"value": float("nan"), "low": 0, "high": 1}}),
        "has a value that is no JSON",
    ),
    "half a surrogate pair": (*about(seed="\ud800"), "has a value that is no JSON"),
    "about as a list": (CONFIG, lambda x: x.update(about=[]), "about is not a JSON"),
    "no fusion": (CONFIG, lambda x: x.pop("fusion") and x, "fusion is not a JSON"),
    "no run": (CONFIG, lambda x: x.update(run=None), "run is not a JSON"),
    "a negative number of items": (
        CONFIG,
        lambda x: x.update(num_items=-1),
        "and num_items is -1",
    ),
    "no number of items": (
        CONFIG,
        lambda x: x.pop("num_items") and x,
        "and num_items is None",
    ),
    "another library": (
        CONFIG,
        lambda x: x.update(library_name="x"),
        "library_name is 'x'",
    ),
    "a long format": (CONFIG, lambda x: x.update(format="9" * 99), "is of format '99"),
    "no users": (HISTORIES, lambda x: x.drop("user"), "no column user"),
    "users without names": (
        HISTORIES,
        lambda x: x.with_columns(user=pl.lit(None, pl.String)),
        "the column user has missing values",
    ),
    "users twice": (
        HISTORIES,
        lambda x: x.with_columns(user=pl.lit("u")),
        "a user appears twice",
    ),
    "no lists of histories": (
        *with_lists([0], None),
        "the column items has missing values",
    ),
    "missing items of histories": (*with_lists([0], [None]), "out of the catalogue"),
    "large items of histories": (*with_lists([0], [25]), "out of the catalogue"),
    "negative items of histories": (*with_lists([0], [-1]), "out of the catalogue"),
    "histories of fractions": (
        HISTORIES,
        lambda x: x.with_columns(items=pl.lit([0.5])),
        "its columns are user String, items List(Float64) instead of",
    ),
    "an item without id": (*null_in("id"), "the column id has missing values"),
    "an item without title": (*null_in("title"), "the column title has missing values"),
    "an item without text": (*null_in("text"), "the column text has missing values"),
    "an item without state": (*null_in("state"), "the column state has missing values"),
    "ids of numbers": (
        ITEMS,
        lambda x: x.with_columns(id=pl.int_range(pl.len())),
        "its columns are id Int64",
    ),
    "a negative number of events": (
        ITEMS,
        lambda x: x.with_columns(events=pl.lit(-1, pl.Int64)),
        "has a negative number of events",
    ),
    "an unknown state": (
        ITEMS,
        lambda x: x.with_columns(state=pl.lit("x")),
        "'x' is not a state of an item",
    ),
    "an added item in front": (
        ITEMS,
        lambda x: x.with_columns(
            state=pl.when(pl.int_range(pl.len()) == 0)
            .then(pl.lit("added"))
            .otherwise("state")
        ),
        "an item that was added is before one that was not",
    ),
    "no items": (ITEMS, lambda x: x.clear(), "has 0 items"),
    "biases in a column": (
        VECTORS,
        lambda x: x.update(bias=x["bias"][:, None]),
        "bias_N has 2 dimensions instead of 1",
    ),
    "one golden list": (GOLDEN, lambda x: x[:1], "golden.json has 1 lists instead of"),
    "golden lists without limits": (
        GOLDEN,
        lambda x: [{**g, "scores": [float("inf")] * len(g["scores"])} for g in x],
        "does not give the lists of its golden.json",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_that_would_break_its_user_is_refused(folder, name):
    file, edit, message = HOSTILE[name]
    change(folder, file, edit)
    with pytest.raises(UserError, match=re.escape(message)) as e:
        recjax.load(folder)
    assert str(folder) in str(e.value)
    assert "\n" not in str(e.value)


def test_cursor_and_store_of_a_promoted_model_are_read(folder):
    change(folder, *about(cursor=2**63 - 1, store="0123456789abcdef" * 2))
    assert recjax.load(folder).parts.about["cursor"] == 2**63 - 1


@pytest.mark.parametrize(
    "name",
    [None, CONFIG, VECTORS, ITEMS, GOLDEN, HISTORIES, CARD, "encoder/config.json"],
)
def test_a_manifest_must_name_every_file_of_the_model(folder, name):
    path = folder / MANIFEST
    names = json.loads(path.read_text())
    kept = {} if name is None else {k: v for k, v in names.items() if k != name}
    path.write_text(json.dumps(kept))
    with pytest.raises(UserError, match=f"does not name {name or CARD}"):
        load_parts(folder)


def test_a_manifest_without_an_absent_file_is_complete(folder):
    """A model may have no histories and no card, and other files may be next to it."""
    path = folder / MANIFEST
    names = json.loads(path.read_text())
    for name in (HISTORIES, CARD):
        names.pop(name)
        (folder / name).unlink()
    path.write_text(json.dumps(names))
    (folder / ".gitattributes").write_text("")
    assert load_parts(folder)[0].histories is None


def test_files_may_be_links_as_in_the_cache_of_the_hub(folder):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in [x for x in folder.rglob("*") if x.is_file()]:
        blob = blobs / path.relative_to(folder).as_posix().replace("/", "-")
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    assert len(recjax.load(folder).items) == 25


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "encoder/../../x"])
def test_a_manifest_names_no_file_elsewhere(folder, name):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), name: "0"}))
    with pytest.raises(UserError, match="is outside of the directory"):
        recjax.load(folder)
