"""The ids, texts and numbers that a caller gives a model, and what is refused."""

import copy
import pickle
import threading
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

import recjax
from recjax.common.errors import UserError
from recjax.inference.ids import IdIndex
from recjax.inference.inputs import id_column, id_text
from recjax.inference.model import Model
from recjax.inference.parts import ItemVectors, ModelParts, make_item_table

ROWS = {"user_id": ["a", "a", "b"], "item_id": ["i1", "i2", "i3"]}


@pytest.fixture
def ids(model):
    """The index of a catalogue whose ids are numbers."""
    names = ["242", "302", "51"]
    items = make_item_table(names, names, names, [1] * 3, ["trained"] * 3)
    none = np.zeros((3, 1))
    vectors = ItemVectors(none, none, none[:, 0])
    return IdIndex(ModelParts(model.parts.config, {}, items, vectors))


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"user_id": [1.0, 1.0, 2.0], "item_id": [242.0, 302, 51]}),
        pd.DataFrame({"user_id": [1, 1, 2], "item_id": [242, "302", 51.0]}),
        pl.DataFrame({"user_id": [1, 1, 2], "item_id": [242.0, 302.0, 51.0]}),
    ],
)
def test_whole_floats_are_integers(ids, frame):
    """Pandas makes floats of integers where a value of the column was missing."""
    users, histories, *_ = ids.queries(None, frame)
    assert users == ["1", "2"]
    assert [history.tolist() for history in histories] == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (7.0, "7"),
        (np.int8(7), "7"),
        (np.float32(7), "7"),
        ("7.0", "7.0"),
        (np.str_("a"), "a"),
        (Decimal(7), "7"),
        (Decimal("1e30"), "1" + "0" * 30),
        (10**30, "1" + "0" * 30),
        (np.float32(2**24 - 1), "16777215"),
    ],
)
def test_texts_and_whole_numbers_are_ids(value, text):
    assert id_text(value, "x") == text


@pytest.mark.parametrize(
    "value",
    [
        *(1.5, float("nan"), 1e17, None, b"1", ["1"], True, pd.NA, pd.NaT, "\ud800"),
        *map(Decimal, ("sNaN", "inf", "1e999999", "1.5")),
        *(np.float32(2**24), np.float16(2**11)),
        pytest.param(10**5000, id="more digits than Python writes"),
    ],
)
def test_other_values_are_no_ids(model, value):
    for call in (
        lambda: model.recommend(histories=[["i1"], ["i2", value]]),
        lambda: model.recommend(users=[value]),
        lambda: model.similar([value]),
    ):
        with pytest.raises(UserError, match="is not an id; ids are texts or whole"):
            call()


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_missing_ids_are_named(model, missing, column):
    rows = {**ROWS, column: ["x", "y", missing]}
    with pytest.raises(UserError, match=f"^histories: row 3: {column} is '', empty$"):
        model.recommend(histories=pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        (pd.Series([1, 2, None]), "row 3: timestamp is None, which"),
        (pd.Series(["1", "soon", "2"]), "row 2: timestamp is 'soon', which"),
        (
            pd.to_datetime(pd.Series(["2024-05-31", None, None])),
            "row 2: timestamp is None, which",
        ),
        (pd.Series([1, 2, "soon"]), "timestamp is of type Object, which"),
        (pl.Series([1.0, float("nan"), 2.0]), "row 2: timestamp is nan, which"),
        (pl.Series([[1], [2], [3]]), r"timestamp is of type List\(Int64\), which"),
    ],
)
def test_values_that_are_no_times_are_named(model, times, problem):
    make = pl.DataFrame if isinstance(times, pl.Series) else pd.DataFrame
    with pytest.raises(UserError, match=f"^histories: {problem} is no time$"):
        model.recommend(histories=make({**ROWS, "timestamp": times}))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series([1.5, 2.0]), "x: row 1: id: 1.5 is not an id"),
        (pl.Series([[1], [2]]), r"x: row 1: id: \[1\] is not an id"),
        (pl.Series([b"1", b"2"]), "x: row 1: id: b'1' is not an id"),
        (
            pl.Series([1, 2**24], dtype=pl.Float32),
            "x: row 2: id: 16777216.0 is not an id",
        ),
        (pl.Series(["a", " "]), "x: row 2: id is ' ', empty"),
        (pl.Series(["a", "NaN"]), "x: row 2: id is 'NaN', not an id"),
        (pl.Series([1.0, float("nan")]), "x: row 2: id is '', empty"),
        (pl.Series([None, None]), "x: row 1: id is '', empty"),
    ],
)
def test_columns_of_ids_are_checked_as_those_of_files(column, message):
    with pytest.raises(UserError, match=f"^{message}"):
        id_column(pl.DataFrame({"id": column}), "id", "x")


def test_whole_numbers_may_be_those_of_numpy(model):
    want = model.recommend(histories=[["i1"]], k=3)
    assert model.recommend(histories=[["i1"]], k=np.int64(3)).equals(want)
    assert len(model.similar(["i1"], k=np.int32(2))) == 2
    found = model.evaluate([["i1"]], ["i2"], ks=np.array([5]))
    assert set(found) == {"hr@5", "ndcg@5", "mrr@5", "auc"}


def test_nothing_gives_empty_results(model):
    for found in (model.similar(texts=[]), model.similar([])):
        assert found.shape == (0, 5)
        assert found.columns[1:] == ["rank", "neighbour", "title", "cosine"]
    one = model.similar(["i1"], k=1)
    assert model.similar([]).schema == one.schema
    width = model.parts.vectors.candidates_NxD.shape[1]
    assert model.encode_items([]).shape == (0, width)
    lists = model.recommend(users=[])
    assert lists.schema == model.recommend(users=model.users[:1]).schema
    assert model.score(texts=[], users=model.users[:2]).shape == (2, 0)


@pytest.mark.parametrize("k", [2.0, "5", None, 0, -1, [1], np.float64(3)])
def test_lengths_that_are_none_are_named(model, k):
    for call in (
        lambda: model.recommend(histories=[["i1"]], k=k),
        lambda: model.similar(["i1"], k=k),
        lambda: model.evaluate([["i1"]], ["i2"], ks=[k]),
    ):
        with pytest.raises(UserError, match=r"is not (a whole number|at least 1)$"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.recommend(histories=5), "^histories: 5 is not a list$"),
        (lambda m: m.recommend(histories="i1"), "'i1' is not a list of histories"),
        (
            lambda m: m.recommend(histories=[None]),
            r"histories\[0\]: None is not a list",
        ),
        (lambda m: m.recommend(histories=[["i1"], 302]), r"\[1\]: 302 is not a list"),
        (lambda m: m.recommend(histories=[b"i1"]), r"b'i1' is not a list"),
        (lambda m: m.recommend(histories=[[["i1"]]]), r"\['i1'\] is not an id"),
        (lambda m: m.recommend(users=5), "users: 5 is not a list"),
        (lambda m: m.recommend(histories=[[]], among=5), "among: 5 is not a list"),
        (lambda m: m.recommend(histories=[[]], among=b"a"), "among: b'a' is not a li"),
        (lambda m: m.evaluate([["i1"]], ["i2"], ks=5), "ks: 5 is not a list"),
        (lambda m: m.evaluate([["i1"]], ["i2"], ks=("a",)), "ks: 'a' is not a whole"),
        (lambda m: m.evaluate([["i1"]], ["i2"], ks=(0,)), "ks: 0 is not at least 1"),
        (lambda m: m.ranks([["i1"]] * 2, "i2"), "^targets: 1 targets for 2 histories$"),
        (lambda m: m.ranks([], []), "^histories: there are none$"),
        (lambda m: m.evaluate([["i1"]], "12"), "targets: no item '12'"),
        (lambda m: m.score(texts=[5], users="all"), "texts: 5 is not a text"),
        (lambda m: m.similar(texts=["a", None]), "texts: None is not a text"),
        (lambda m: m.similar(texts=["\ud800"]), r"texts: '\\ud800' is not a text"),
        (lambda m: m.encode_items([1]), "items: 1 is not a text"),
        (lambda m: m.recommend(histories=pl.LazyFrame(ROWS)), "histories: is a LazyF"),
        (lambda m: m.recommend(users=pl.LazyFrame(ROWS)), "users: is a table"),
        (lambda m: m.add_items(pl.LazyFrame(ROWS)), "items: is a LazyFrame"),
        (
            lambda m: m.recommend(users=["a", "b"]),
            "2 users are not in the model: 'a', ",
        ),
    ],
)
def test_arguments_of_other_types_are_named(model, call, message):
    with pytest.raises(UserError, match=message) as e:
        call(model)
    assert "\n" not in str(e.value)


def test_two_columns_of_one_name_are_refused(model):
    frame = pd.DataFrame([["a", "i1", "i2"]], columns=["user_id", "item_id", "item_id"])
    with pytest.raises(UserError, match="column 'item_id' appears twice"):
        model.recommend(histories=frame)


def test_a_column_of_pandas_is_a_list(model):
    users = pd.Series(model.users[:2])
    assert model.recommend(users=users, k=1)["user"].to_list() == model.users[:2]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"": "one"}, "row 1: item_id is '', empty"),
        ({"a": "one", " ": "one"}, "row 2: item_id is ' ', empty"),
        ({None: "one"}, "None is not an id"),
        ({"NaN": "one"}, "'NaN', not an id"),
        ({"a": 5}, "items: 5 is not a text"),
        ({"a": "one", 1: "two", "1": "x"}, "an id appears twice"),
        (
            pl.DataFrame({"item_id": ["a"], "title": [""], "genre": [None]}),
            "has no text",
        ),
        (
            pl.DataFrame({"item_id": ["a", None], "title": "x", "genre": "y"}),
            "row 2: item_id is '', empty",
        ),
        (
            pl.DataFrame({"item_id": ["a"], "title": [{"x": 1}], "genre": "y"}),
            "column 'title' is of type Struct",
        ),
    ],
)
def test_items_without_id_or_text_are_refused(finished, items, message):
    model = recjax.load(finished)
    size = len(model.items)
    with pytest.raises(UserError, match=message):
        model.add_items(items)
    assert len(model.items) == size


def test_tables_of_items_are_read_as_files_are(finished):
    """Missing texts are empty, lists are joined, and whole floats are ids."""
    model = recjax.load(finished)
    rows = {
        "item_id": [9001.0, 9002.0],
        "title": ["one", float("nan")],
        "genre": [["drama", "action"], ["war"]],
    }
    model.add_items(pd.DataFrame(rows))
    added = model.items[-2:]
    assert added["id"].to_list() == ["9001", "9002"]
    assert added["text"].to_list() == ["one drama action", "war"]
    model.add_items(pl.DataFrame({**rows, "item_id": [1, 2], "title": [1.5, np.nan]}))
    assert model.items["text"].to_list()[-2:] == ["1.5 drama action", "war"]


def test_items_of_several_threads_are_all_added(finished):
    model = recjax.load(finished)
    size, failed = len(model.items), []

    def add(thread):
        try:
            for number in range(8):
                model.add_items({f"t{thread} {number}": "one two drama"})
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=add, args=[i]) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(model.items) == size + 24
    assert model.items["id"].n_unique() == size + 24


def test_a_model_is_read_while_items_are_added(finished, tmp_path):
    """Fused scores, ids and vectors of one call are of the same items."""
    model = recjax.load(finished)
    users, items, failed = model.users[:3], model.items["id"][:2], []
    done = threading.Event()

    def read():
        try:
            while not done.is_set():
                size = len(model.items)
                lists = model.recommend(users=users, k=1000, exclude_seen=False)
                assert len(lists) >= size * len(users)
                model.score(model.items["id"], users=users)
                model.similar(items, k=3)
                model.ranks([items] * 2, items)
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(6):
        model.add_items({f"t {number}": "one two drama"})
    model.save_pretrained(tmp_path / "model")
    done.set()
    for thread in threads:
        thread.join()
    assert not failed


def test_items_that_are_added_during_a_call_are_not_in_it(finished, monkeypatch):
    model = recjax.load(finished)
    size, fused_scores = len(model.items), Model.fused_scores

    def add_first(self, histories):
        if len(model.items) == size:
            model.add_items({"new": "one two drama"})
        return fused_scores(self, histories)

    monkeypatch.setattr(Model, "fused_scores", add_first)
    lists = model.recommend(users=model.users[:1], k=1000, exclude_seen=False)
    assert len(lists) == size
    lists = model.recommend(users=model.users[:1], k=1000, exclude_seen=False)
    assert len(lists) == size + 1


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_a_copy_of_a_model_gives_the_same_lists(finished, clone):
    model = recjax.load(finished)
    model.add_items({"new": "one two drama"})
    want = model.recommend(users="all", k=3)
    again = clone(model)
    assert again.recommend(users="all", k=3).equals(want)
    again.add_items({"newer": "one two drama"})
    assert len(again.items) == len(model.items) + 1
