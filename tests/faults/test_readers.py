"""Malformed files: never a traceback, never a row that is lost without a word."""

import io
import os
import random

import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from recjax.common.errors import UserError
from recjax.data.splits import load_data

# Of each kind; more with RECJAX_EXAMPLES.
EXAMPLES = int(os.environ.get("RECJAX_EXAMPLES", "350"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

NASTY = [
    b"", b" ", b"nan", b"NaN", b"null", b"-1", b"1e400", b"-inf", b"9" * 40,
    b"1700000000000", b"4102444800", b"2024-05-31", b"2024-13-45", b"05/06/2024",
    b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\x00", b"a\x00b", b"\r", b"\r\n",
    b"\n", b"\n\n", b"\t", b'"', b'""', b'"a\tb"', b'"x,y"', b'"open',
    b"\xef\xbb\xbf",
    "é".encode(), "\u2028".encode(), b"#", b"\\", b"{title}", b"a b", b"\x1a",
    b"z" * 3000,
]  # fmt: skip
HEADER = [b"user_id:token", b"item_id:token", b"rating:float", b"timestamp:float"]


def field(good):
    return st.one_of(
        st.sampled_from(good), st.sampled_from(NASTY), st.binary(max_size=6)
    )


ROW = st.one_of(
    st.tuples(
        st.sampled_from([b"u", b"v", b"w"]),
        st.sampled_from([b"a", b"b", b"c", b"d"]),
        st.sampled_from([b"1", b"5"]),
        st.integers(0, 99).map(lambda n: b"%d" % n),
    ),
    st.tuples(
        field([b"u", b"v"]),
        field([b"a", b"b", b"zz"]),
        field([b"3", b"0", b"99"]),
        field([b"7"]),
    ),
    st.lists(field([b"u", b"a", b"1"]), max_size=6).map(tuple),
)
FILE = st.lists(ROW, max_size=12)
ITEMS = b"item_id:token\ttitle:token_seq\n" + b"".join(
    b"%c\tthing %c\n" % (c, c) for c in b"abcd"
)


def start(seed):
    """Enough good rows for all splits."""
    rng = random.Random(seed)
    return [
        (b"g", c, b"4", b"%d" % rng.randrange(50)) for c in (b"a", b"b", b"c", b"d")
    ]


def check_one_line(e):
    assert "\n" not in str(e)


def check(config, folder, kind, raw, suffix="", file_format="atomic", counted=True):
    """Reads the file as a part of a data set, in both modes.

    Returns:
      Whether there was enough left of it.
    """
    folder.mkdir(exist_ok=True)
    other = {"inter": "item", "item": "inter"}[kind]
    if file_format != "parquet":
        good = ITEMS if other == "item" else INTER
        if file_format == "csv":
            good = good.replace(b"\t", b",")
            good = good.replace(b":token_seq", b"").replace(b":token", b"")
            good = good.replace(b":float", b"")
        (folder / f"x.{other}{suffix}").write_bytes(good)
    (folder / f"x.{kind}{suffix}").write_bytes(raw)
    c = config.copy_and_resolve_references().unlock()
    c.data.source, c.data.file_prefix, c.data.format = str(folder), "x", file_format
    c.data.rating, c.data.rating_range, c.data.strict = "rating", (1, 5), False
    try:
        data = load_data(c)
    except UserError as e:
        check_one_line(e)
        data = None
    else:
        for name, (given_, used) in data.row_counts.items():
            rejected = data.rejected.filter(pl.col("file") == name)
            assert given_ == used + len(rejected)
            assert (rejected["reason"] != "").all()
        if counted:
            body = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
            lines = [line for line in body.split(b"\n")[1:] if line]
            assert data.row_counts[f"x.{kind}{suffix}"][0] == len(lines)
    c.data.strict = True
    try:
        strict = load_data(c)
    except UserError as e:
        check_one_line(e)
    else:
        assert data is not None
        assert not len(strict.rejected)
        assert not len(data.rejected)
        assert strict.fingerprint == data.fingerprint
    return data is not None


INTER = b"\n".join(b"\t".join(row) for row in [tuple(HEADER), *start(0)]) + b"\n"
# So many good rows that most changes of a file leave enough of them.
LONG = {
    "inter": INTER
    + b"".join(
        b"h%d\t%c\t%d\t%d\n" % (user, b"abcd"[(user + time) % 4], 1 + time % 5, time)
        for user in range(9)
        for time in range(8)
    ),
    "item": ITEMS + b"".join(b"e%d\tthing %d\n" % (i, i) for i in range(60)),
}


@SETTINGS
@given(rows=FILE, header=st.permutations(HEADER), seed=st.integers(0, 9))
def test_atomic_interactions(config, tmp_path, rows, header, seed):
    order = [HEADER.index(name) for name in header]
    good = [tuple(row[i] for i in order) for row in start(seed)]
    raw = b"\n".join(b"\t".join(row) for row in [tuple(header), *good, *rows])
    assert check(config, tmp_path / "x", "inter", raw)


@SETTINGS
@given(rows=FILE, quote=st.booleans())
def test_csv_interactions(config, tmp_path, rows, quote):
    names = [name.split(b":")[0] for name in HEADER]
    lines = [names, *start(0), *rows]
    raw = b"\n".join(b",".join(row) for row in lines)
    if quote:
        raw += b'\n"h",a,4,3'
    counted = b'"' not in raw
    assert check(config, tmp_path / "x", "inter", raw, ".csv", "csv", counted)


@SETTINGS
@given(rows=st.lists(st.lists(field([b"a", b"e", b"f"]), max_size=4), max_size=10))
def test_atomic_items(config, tmp_path, rows):
    raw = ITEMS + b"\n".join(b"\t".join(row) for row in rows)
    assert check(config, tmp_path / "x", "item", raw)


def mutate(raw, changes):
    out = bytearray(raw)
    for kind, where, value in changes:
        place = where % (len(out) + 1)
        if kind == "flip" and out:
            out[place % len(out)] = value
        elif kind == "cut":
            del out[place : place + value % 30]
        elif kind == "put":
            out[place:place] = bytes([value])
        elif kind == "end":
            del out[place:]
    return bytes(out)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "cut", "put", "end"]),
        st.integers(0, 10**6),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=5,
)


def test_mutated_atomic(config, tmp_path):
    loaded = []

    @SETTINGS
    @given(changes=CHANGES, kind=st.sampled_from(["inter", "item"]))
    def read(changes, kind):
        raw = mutate(LONG[kind], changes)
        loaded.append(check(config, tmp_path / "x", kind, raw))

    read()
    assert sum(loaded) > len(loaded) / 4


@SETTINGS
@given(changes=CHANGES)
def test_mutated_fixed_splits(config, atomic_dir, tmp_path, changes):
    folder = tmp_path / atomic_dir.name
    folder.mkdir(exist_ok=True)
    for path in atomic_dir.iterdir():
        raw = path.read_bytes()
        if path.name.endswith("valid.inter"):
            raw = mutate(raw, changes)
        (folder / path.name).write_bytes(raw)
    c = config.copy_and_resolve_references().unlock()
    c.data.source, c.data.split, c.data.strict = str(folder), "fixed", False
    try:
        data = load_data(c)
    except UserError as e:
        check_one_line(e)
        return
    for name, (given_, used) in data.row_counts.items():
        assert given_ == used + len(data.rejected.filter(pl.col("file") == name))


def parquet(table):
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


PARQUET = {
    "inter": pl.DataFrame(
        {
            "user_id": [*"uuuuvvvv" * 4],
            "item_id": [*"abcdabcd" * 4],
            "rating": [1.0, 2, 3, 4, 5, 4, 3, 2] * 4,
            "timestamp": range(32),
        }
    ),
    "item": pl.DataFrame({"item_id": [*"efghijklabcd"], "title": [*"wxyz" * 3]}),
}
TYPES = [
    pl.Int64, pl.UInt8, pl.Float32, pl.Boolean, pl.Categorical, pl.Binary, pl.Date,
    pl.Datetime, pl.Duration, pl.Time, pl.List(pl.Int64), pl.Null, pl.String,
]  # fmt: skip
VALUES = st.lists(
    st.one_of(st.none(), st.integers(-9, 10**13), st.floats(), st.sampled_from("abuv")),
    min_size=8,
    max_size=8,
)


def test_parquet(config, tmp_path):
    """The first rows of a column have other values, and the column another type."""
    folder, loaded = tmp_path / "x", []
    folder.mkdir()

    @SETTINGS
    @given(
        kind=st.sampled_from(["inter", "item"]),
        column=st.integers(0, 3),
        dtype=st.sampled_from(TYPES),
        values=VALUES,
        changes=st.one_of(st.just([]), CHANGES),
    )
    def read(kind, column, dtype, values, changes):
        for name, table in PARQUET.items():
            (folder / f"x.{name}.parquet").write_bytes(parquet(table))
        table = PARQUET[kind]
        name = table.columns[column % table.width]
        values = [*values, *table[name].cast(pl.String)[len(values) :]]
        column_of = pl.Series(name, values, dtype=pl.String, strict=False)
        try:
            table = table.with_columns(column_of.cast(dtype, strict=False))
        except pl.exceptions.PolarsError:
            assume(False)
        raw = mutate(parquet(table), changes)
        loaded.append(
            check(config, folder, kind, raw, ".parquet", "parquet", counted=False)
        )

    read()
    assert sum(loaded) > len(loaded) / 10


@pytest.mark.parametrize("file_format", ["atomic", "csv"])
def test_a_history_of_a_million_items(config, tmp_path, file_format):
    folder = tmp_path / "x"
    folder.mkdir()
    events = pl.DataFrame(
        {"user_id": ["u"] * 10**6 + ["v"] * 3 + ["w"], "n": range(10**6 + 4)}
    )
    events = events.select(
        pl.col("user_id"),
        (pl.lit("i") + (pl.col("n") % 1000).cast(pl.String)).alias("item_id"),
        pl.col("n").alias("timestamp"),
    )
    suffix, separator = ("", "\t") if file_format == "atomic" else (".csv", ",")
    path = folder / f"x.inter{suffix}"
    events.write_csv(path, separator=separator)
    if file_format == "atomic":
        raw = path.read_bytes().replace(b"\n", b":float\n", 1)
        raw = raw.replace(b"_id\t", b"_id:token\t", 2)
        path.write_bytes(raw)
    c = config.unlock()
    c.data.source, c.data.format, c.data.item_table = str(folder), file_format, False
    data = load_data(c)
    assert len(data.test) == 2  # w has one event
    assert len(data.test.history(0)) == 10**6 - 1
    assert data.row_counts[path.name] == (10**6 + 4, 10**6 + 4)
