"""Splits, order and the fingerprint."""

import datetime
import hashlib
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

from recjax.common.errors import UserError
from recjax.data.dataset import Examples
from recjax.data.splits import load_data
from recjax.reporting import data_report

pytestmark = pytest.mark.unit


def write(folder, inter, item=None, **more):
    folder.mkdir(parents=True, exist_ok=True)
    files = {"inter": inter, "item": item, **more}
    for kind, lines in files.items():
        if lines is not None:
            name = f"{folder.name}.{kind.replace('_', '.')}"
            (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def open_config(config, folder, **data):
    config = config.copy_and_resolve_references().unlock()
    config.data.source = str(folder)
    for key, value in data.items():
        config.data[key] = value
    return config


EVENTS = ["user_id:token\titem_id:token\ttimestamp:float"]
ITEMS = ["item_id:token\ttitle:token_seq", *(f"{i}\tthing {i}" for i in "abcd")]


def names(data, examples, i):
    history = data.item_ids[examples.history(i)]
    return "".join(history), data.item_ids[examples.targets_R[i]]


def test_leave_one_out_in_stable_time_order(config, tmp_path):
    events = ["u\tc\t2", "u\ta\t1", "u\tb\t2", "v\ta\t1", "v\tb\t0", "u\td\t2"]
    folder = write(tmp_path / "x", EVENTS + events, ITEMS)
    data = load_data(open_config(config, folder))
    # u: a, then c, b, d with equal times in the order of the file.
    assert names(data, data.train, 0) == ("a", "c")
    assert names(data, data.valid, 0) == ("ac", "b")
    assert names(data, data.test, 0) == ("acb", "d")
    # v has two events: for training only.
    assert names(data, data.train, 1) == ("b", "a")
    assert len(data.valid) == len(data.test) == 1
    assert data.train.all_positions
    assert sorted(data.item_ids[data.train.events()]) == list("aabc")


def test_fixed_files(config, atomic_dir):
    data = load_data(open_config(config, atomic_dir, split="fixed"))
    assert (len(data.train), len(data.valid), len(data.test)) == (240, 40, 40)
    assert not data.train.all_positions
    whole = load_data(config)
    for fixed, cut in ((data.test, whole.test), (data.valid, whole.valid)):
        order = np.argsort(fixed.users_R)
        np.testing.assert_array_equal(fixed.targets_R[order], cut.targets_R)
        history = [fixed.history(i) for i in order]
        np.testing.assert_array_equal(
            np.concatenate(history), cut.items[cut.positions()]
        )


def test_shared_events_count_once():
    """All targets, and once per user what is only in histories."""
    examples = Examples(
        users_R=np.array([0, 0, 1]),
        items=np.array([4, 2, 4, 2, 3, 5, 5]),
        starts_R=np.array([0, 2, 5]),
        ends_R=np.array([2, 5, 7]),
        targets_R=np.array([3, 1, 2]),
        ratings_R=np.full(3, np.nan),
    )
    # The first user began with 4 and 2; the second has 5 twice in a history.
    assert sorted(examples.events()) == [1, 2, 2, 3, 4, 5]
    assert examples.events()[-3:].tolist() == [3, 1, 2]


def test_unusual_column_names(config, tmp_path):
    items = ["item_id:token\tbrand.name:token\t0:token", "a\tx\t1", "b\ty\t2"]
    items += ["c\t{z}\t3", "d\t\t4"]
    events = [f"u\t{x}\t{i}" for i, x in enumerate("abcd")]
    folder = write(tmp_path / "x", EVENTS + events, items)
    data = load_data(open_config(config, folder))
    texts = ["{x} 1", "{y} 2", "{{z}} 3", "4"]
    assert data.render("{{{brand.name}}} {0}", "text.template") == texts


def test_no_known_item(config, tmp_path):
    events = [f"u\t{x}\t1" for x in ("p", "q", "r")]
    folder = write(tmp_path / "x", EVENTS + events, ITEMS)
    with pytest.raises(UserError, match=r"x\.inter: no interaction with a known item"):
        load_data(open_config(config, folder, strict=False))


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_other_formats_give_the_same_data(config, atomic_dir, tmp_path, file_format):
    from recjax.data.ingest.formats import read_table

    folder = tmp_path / atomic_dir.name
    folder.mkdir()
    for kind in ("inter", "item"):
        table = read_table(atomic_dir / f"{atomic_dir.name}.{kind}", "atomic").frame
        path = folder / f"{folder.name}.{kind}.{file_format}"
        if file_format == "csv":
            table.write_csv(path)
        else:
            typed = {"timestamp": pl.Int64, "rating": pl.Float32}
            table = table.cast({k: v for k, v in typed.items() if k in table.columns})
            table.write_parquet(path)
    a = load_data(open_config(config, atomic_dir, rating="rating"))
    b = load_data(open_config(config, folder, format=file_format, rating="rating"))
    for x, y in ((a.train, b.train), (a.valid, b.valid), (a.test, b.test)):
        np.testing.assert_array_equal(x.items, y.items)
        np.testing.assert_array_equal(x.targets_R, y.targets_R)
        np.testing.assert_array_equal(x.ratings_R, y.ratings_R)
    assert a.render("{title}", "") == b.render("{title}", "")


def test_fingerprint_changes_with_the_protocol_only(config, atomic_dir):
    def of(**changes):
        c = open_config(config, atomic_dir)
        for key, value in changes.items():
            section, name = key.split("__")
            c[section][name] = value
        return load_data(c).fingerprint

    same = of()
    assert of(item_tower__width=32) == same
    assert of(train__batch_size=8) == same
    others = [
        of(eval__mask_seen=False),
        of(data__history_length=3),
        of(data__time=""),
        of(data__split="fixed"),
        of(data__rating="rating", eval__like_threshold=3.0),
        of(data__rating="rating", eval__like_threshold=4.0),
    ]
    assert len({same, *others}) == 7
    assert of(data__rating="rating") == of(eval__like_threshold=4.0) == same
    fixed = of(data__split="fixed")
    assert fixed == of(data__split="fixed", data__time="")  # times are not read


@pytest.mark.parametrize(
    ("inter", "item", "message"),
    [
        (None, ITEMS, r"x\.inter: no such file"),
        (EVENTS, ITEMS, "no interactions"),
        ([*EVENTS, "u\ta\t1"], ITEMS[:1], r"x\.item: no rows"),
        (["user_id:token\titem:token"], ITEMS, "no column item_id \\(data.item\\); it"),
        (["user_id\titem_id:token"], ITEMS, "header 'user_id' is not name:type"),
        (
            [*EVENTS, "u\ta\t1", "u\tb\tx"],
            ITEMS,
            "row 3: timestamp is 'x', neither",
        ),
        (
            [*EVENTS, "u\ta\t05/06/2024"],
            ITEMS,
            "row 2: timestamp is '05/06/2024', neither",
        ),
        ([*EVENTS, "u\ta\tnan"], ITEMS, "row 2: timestamp is 'nan', neither"),
        ([*EVENTS, "u\ta\t-5"], ITEMS, "row 2: timestamp is '-5', before 1970"),
        ([*EVENTS, "u\ta\t1e12"], ITEMS, "row 2: .* milliseconds"),
        ([*EVENTS, "u\ta\t1", "u\ta\t1"], ITEMS, "row 3: the same event again"),
        ([*EVENTS, "u\ta\t1", "\tb\t2"], ITEMS, "row 3: user_id is '', empty"),
        (
            [*EVENTS, "u\ta\t1", "u\tz\t2"],
            ITEMS,
            r"row 3: item_id is 'z', not in .*x\.item",
        ),
        (
            [*EVENTS, "u\ta\t1"],
            [*ITEMS, "a\tagain"],
            "row 6: item_id is 'a', appears twice",
        ),
        ([*EVENTS, "u\ta\t1", "u\tb\t2"], ITEMS, "leaves valid empty"),
    ],
)
def test_bad_files_are_one_line(config, tmp_path, inter, item, message):
    folder = write(tmp_path / "x", inter, item)
    with pytest.raises(UserError, match=message) as e:
        load_data(open_config(config, folder))
    assert "\n" not in str(e.value)


def test_the_wording_of_reasons_does_not_change_the_fingerprint(config, tmp_path):
    """The protocol hashes the reasons of rejected rows in their first wording."""
    events = [f"{u}\t{i}\t1" for u in "uv" for i in "abcd"]
    folder = write(tmp_path / "x", EVENTS + events, [*ITEMS, "a\tagain"])
    data = load_data(open_config(config, folder, strict=False))
    assert data.rejected["reason"].to_list() == ["appears twice"]
    raw = json.dumps([["x.item", 6, "item_id", "stands there twice"]])
    digest = hashlib.sha256(raw.encode()).hexdigest()[:12]
    assert data.protocol["rejected"] == f"1 rows, {digest}"


def test_dates_are_times_and_ties_keep_the_order_of_the_file(config, tmp_path):
    days = ["2024-01-03T00:00:02", "2024-01-01", "2024-01-03 00:00:02", "2023-12-31"]
    events = [f"u\t{i}\t{day}" for i, day in zip("abcd", days, strict=True)]
    folder = write(tmp_path / "x", [*EVENTS, *events, "u\td\t2025-01-01"], ITEMS)
    data = load_data(open_config(config, folder))
    assert names(data, data.test, 0) == ("dbac", "d")
    a, b, c, d, last = data.test.sequence_times(0)
    assert c == d
    assert (b - a, last - d) == (86400, 363 * 86400 + 86398)
    assert data.train.sequence_times(0).tolist() == [a, b, c]


def test_lists_of_parquet_files(config, tmp_path):
    """Histories may be lists; unused nested columns are ignored."""
    folder = tmp_path / "x"
    folder.mkdir()
    for part, item in (("train", "a"), ("valid", "b"), ("test", "d")):
        table = {"user_id": ["u"], "item_id_list": [["a", "c"]], "item_id": [item]}
        pl.DataFrame(table).write_parquet(folder / f"x.{part}.inter.parquet")
    ids = list("abcd")
    items = {"item_id": ids, "tags": [["x", "y"]] * 4, "odd": [{"k": [1]}] * 4}
    pl.DataFrame(items).write_parquet(folder / "x.item.parquet")
    data = load_data(open_config(config, folder, split="fixed", format="parquet"))
    assert names(data, data.test, 0) == ("ac", "d")
    assert data.render("{tags}", "")[0] == "x y"
    assert "odd" not in data.items.columns
    with pytest.raises(UserError, match=r"column 'odd' is of type Struct.*; save it"):
        data.render("{odd}", "text.template")


def test_times_of_day_are_not_times(config, tmp_path):
    folder = write(tmp_path / "x", None)
    noon = [datetime.time(12)] * 3
    events = {"user_id": ["u"] * 3, "item_id": list("abc"), "timestamp": noon}
    pl.DataFrame(events).write_parquet(folder / "x.inter.parquet")
    with pytest.raises(UserError, match="timestamp is of type Time, not a time"):
        load_data(open_config(config, folder, format="parquet", item_table=False))


def test_users_in_the_order_of_their_index(config, tmp_path):
    events = [f"{u}\t{i}\t1" for u in "vu" for i in "abc"]
    users = ["user_id:token\tage:float", "w\t1", "v\t30", "u\t20"]
    folder = write(tmp_path / "x", EVENTS + events, ITEMS, user=users)
    data = load_data(open_config(config, folder, user_table=True))
    assert data.user_ids.tolist() == data.users["user_id"].to_list() == ["u", "v"]
    assert data.users["age"].to_list() == ["20", "30"]
    assert load_data(open_config(config, folder)).users.columns == ["user_id"]
    write(folder, EVENTS + events, ITEMS, user=users[:-1])
    with pytest.raises(UserError, match=r"x\.user: no user 'u' \(and 0 more\)"):
        load_data(open_config(config, folder, user_table=True))
    lenient = load_data(open_config(config, folder, user_table=True, strict=False))
    assert lenient.users["age"].to_list() == ["", "30"]
    report = data_report.data_report(lenient, None, config)
    assert re.search(r"users not in x.user +1\n", report)
    write(folder, EVENTS + events, ITEMS, user=[*users, "v\t3"])
    with pytest.raises(UserError, match="user_id is 'v', appears twice"):
        load_data(open_config(config, folder, user_table=True))


def test_liked_items(config, tmp_path):
    events = ["user_id:token\titem_id:token\ttimestamp:float\trating:float"]
    events += ["u\ta\t1\t5", "u\tb\t2\t2", "u\tc\t3\t4", "u\td\t4\t5"]
    folder = write(tmp_path / "x", events, ITEMS)
    data = load_data(open_config(config, folder, rating="rating"))
    assert data.item_ids[data.test.liked(0, 4.0)].tolist() == ["a", "c"]
    assert data.item_ids[data.test.liked(0, 0.0)].tolist() == ["a", "b", "c"]
    data = load_data(open_config(config, folder))
    assert data.item_ids[data.test.liked(0, 4.0)].tolist() == ["a", "b", "c"]


def test_test_examples_that_are_training_examples_are_a_warning(config, atomic_dir):
    data = load_data(open_config(config, atomic_dir, split="fixed"))
    assert not data.test_examples_in_train
    folder = shutil.copytree(atomic_dir, atomic_dir.parent / "same" / "tiny")
    shutil.copyfile(folder / "tiny.train.inter", folder / "tiny.test.inter")
    data = load_data(open_config(config, folder, split="fixed"))
    assert data.test_examples_in_train == len(data.test)
    warnings = data_report.protocol_warnings(data, config.eval)
    assert any("test examples are training examples too" in line for line in warnings)


def test_fixed_splits_without_an_item_file(config, tmp_path):
    """The catalogue has the items of histories and targets."""
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    parts = {
        f"{part}_inter": [header, f"u\t1  {item} \t3"]
        for part, item in (("train", 10), ("valid", 2), ("test", 2))
    }
    folder = write(tmp_path / "x", None, **parts)
    data = load_data(
        open_config(config, folder, split="fixed", item_table=False, rating="")
    )
    assert data.item_ids.tolist() == ["1", "10", "2", "3"]
    assert data.train.sequence(0).tolist() == [0, 1, 3]


def test_unknown_template_field(config):
    data = load_data(config)
    for template, message in {
        "{titel}": r"no column 'titel'; the item table has item_id, title, genre",
        "{title.x}": r"no column 'title\.x'; the item table",
        "{title[x]}": r"no column 'title\[x\]'; the item table",
        "{}": "no column ''; the item table",
        "{": "text.title: '{': ",
        "{title:>10}": "formats are not supported; write {title}",
        "{title!r}": "formats are not supported; write {title}",
    }.items():
        with pytest.raises(UserError, match=message) as e:
            data.render(template, "text.title")
        assert e.value.key == "text.title"
