"""Rows of a file: used, or rejected with the reason."""

import datetime
import gzip

import polars as pl
import pytest

from recjax.common.errors import UserError
from recjax.data.ingest.formats import read_table
from recjax.data.ingest.parsing import parse_csv, parse_lines
from recjax.data.ingest.tables import id_problem, is_id

pytestmark = pytest.mark.unit

HEADER = b"user_id:token\titem_id:token\ttimestamp:float\n"


def write(tmp_path, raw, name="x.inter"):
    path = tmp_path / name
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"u\ta", "2 columns, not 3"),
        (b"u\ta\t1\tmore", "4 columns, not 3"),
        (b'"u\tx"\ta\t1', "4 columns, not 3"),
        (b"u\xff\ta\t1", "not UTF-8"),
        (b"u\0\ta\t1", "a NUL byte"),
        (b"u\ta\r\t1", "a carriage return inside"),
    ],
)
def test_malformed_lines(tmp_path, line, reason):
    path = write(tmp_path, HEADER + b"u\ta\t1\n\n" + line + b"\nv\tb\t2\n")
    table = read_table(path, "atomic")
    assert table.frame["user_id"].to_list() == ["u", "v"]
    assert table.line_numbers.tolist() == [2, 5]
    assert table.num_rows == 3
    ((name, row, column, why, value, text),) = table.rejected_rows()
    assert (name, row, column, why, value) == ("x.inter", 4, "", reason, "")
    assert text == line.decode("utf-8", "replace")
    with pytest.raises(UserError, match=f"x.inter: row 4: {reason}"):
        table.refuse_bad_rows()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        ("a:token\n".encode("utf-16"), "UTF-16"),
        ("a:token\n".encode("utf-16-le"), "UTF-16"),
        ("a:token\n".encode("utf-16-be"), "UTF-16"),
        (b"PK\x03\x04...", "is an archive or a spreadsheet; unpack it"),
        (b"\x28\xb5\x2f\xfd...", "is compressed by zstd; unpack it"),
        (b"PAR1...", "is a Parquet file; set data.format to 'parquet'"),
        (b"a:token\ta:token\n", "column 'a:token' appears twice"),
        (b"a:token\t\n", "a column without a name"),
        (b"a:token\tb:int\n", "header 'b:int' is not name:type"),
        (b"a:token\ta:float\n", "header: 'a' appears twice"),
    ],
)
def test_malformed_headers(tmp_path, raw, message):
    with pytest.raises(UserError, match=message):
        read_table(write(tmp_path, raw), "atomic")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path, mark, end, last):
    raw = mark + (HEADER + "é\ta\t1\nv\t\t2\n".encode()).replace(b"\n", end)
    table = read_table(write(tmp_path, raw if last else raw[: -len(end)]), "atomic")
    assert table.frame.rows() == [("é", "a", "1"), ("v", "", "2")]


def test_quotes_of_csv(tmp_path):
    raw = b'a,b\n1,"x, ""y""\nz"\n2,"open\n3,c\n"4"x,d\n\n5,"e"\n'
    found = parse_csv(raw, tmp_path)
    assert found.frame.rows() == [("1", 'x, "y"\nz'), ("3", "c"), ("5", "e")]
    assert found.line_numbers.tolist() == [2, 5, 8]
    assert [row for row, _ in found.bad] == [4, 6]
    assert all("quotes do not fit" in reason for _, reason in found.bad)
    table = read_table(write(tmp_path, raw, "x.csv"), "csv")
    assert [row[-1] for row in table.rejected_rows()] == ['2,"open', '"4"x,d']
    assert [table.texts(n) for n in (2, 5, 8)] == ['1,"x, ""y""\nz"', "3,c", '5,"e"']


def test_formats_of_times(tmp_path):
    forms = [
        "1717113600", "1717113600.0", "2024-05-31", "2024-05-31T00:00",
        "2024-05-31 00:00:00", "2024-05-31T00:00:00.000", "2024-05-31T00:00:00Z",
        "2024-05-31T02:00:00+02:00", "2024-05-30T22:00:00-0200",
        "2024-05-31 00:00:00 UTC",
    ]  # fmt: skip
    raw = HEADER + b"".join(f"u\ta\t{form}\n".encode() for form in forms)
    table = read_table(write(tmp_path, raw), "atomic")
    table.check_times("timestamp")
    assert table.frame["timestamp"].to_list() == [1717113600.0] * len(forms)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "neither"),
        ("nan", "neither"),
        ("1e400", "neither"),
        ("2024-13-45", "neither"),
        ("2024-05-31x", "neither"),
        ("-1", "before 1970"),
        ("1717113600000", "milliseconds"),
        ("1717113600000000000", "nanoseconds"),
        ("9" * 30, "nanoseconds"),
        ("TOMORROW", "in the future"),
    ],
)
def test_bad_times(tmp_path, value, reason):
    if value == "TOMORROW":
        day = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
        value = day.date().isoformat()
    raw = HEADER + f"u\ta\t5\nu\tb\t{value}\n".encode()
    table = read_table(write(tmp_path, raw), "atomic")
    table.check_times("timestamp")
    assert table.frame["timestamp"].to_list() == [5.0]
    ((_, row, column, why, _, text),) = table.rejected_rows()
    assert (row, column) == (3, "timestamp")
    assert reason in why
    assert text == f"u\tb\t{value}"


def test_days_as_numbers_are_not_seconds(tmp_path):
    rows = b"u\ta\t20240531\nu\tb\t20231201\n"
    table = read_table(write(tmp_path, HEADER + rows), "atomic")
    with pytest.raises(UserError, match=r"looks like days .* write 2024-05-31"):
        table.check_times("timestamp")
    rows += b"v\ta\t20241399\n"  # no day: they are seconds
    table = read_table(write(tmp_path, HEADER + rows), "atomic")
    table.check_times("timestamp")
    assert len(table) == 3


def test_ids_numbers_and_repeats(tmp_path):
    lines = [
        "u\ta\t1",
        "\ta\t2",
        "nan\ta\t3",
        " \ta\t3",
        "u\ta\t6",
        "u\tz\t2",
        "u\ta\t1",
        "<NA>\ta\t1",
        "None\ta\t1",
    ]
    raw = HEADER + "".join(f"{line}\n" for line in lines).encode()
    table = read_table(write(tmp_path, raw), "atomic")
    table.check_ids("user_id")
    table.check_numbers("timestamp", 1, 5)
    table.check_known("item_id", pl.Series(["a", "b"]), "x.item")
    table.check_distinct(["user_id", "item_id", "timestamp"], "the same again")
    assert table.frame.rows() == [("u", "a", 1.0)]
    assert {(row, why) for row, _, why, _ in table.rejected} == {
        (3, "empty"),
        (4, "not an id"),
        (5, "empty"),
        (6, "not within 1 and 5"),
        (7, "not in x.item"),
        (8, "the same again"),
        (9, "not an id"),
        (10, "not an id"),
    }
    assert table.num_rows == len(table) + len(table.rejected)


def test_columns_of_the_wrong_type(tmp_path):
    path = tmp_path / "x.parquet"
    pl.DataFrame({"n": ["one", "2"], "t": [datetime.time(1)] * 2}).write_parquet(path)
    table = read_table(path, "parquet")
    with pytest.raises(UserError, match="t is of type Time, not a time"):
        table.check_times("t")
    table.check_numbers("n")
    assert table.frame["n"].to_list() == [2.0]
    assert table.rejected == [(1, "n", "not a number", "one")]
    assert table.rejected_rows()[0][-1] == "one\t01:00:00"
    path.write_bytes(b"PAR1 is no file")
    with pytest.raises(UserError, match=r"x\.parquet: "):
        read_table(path, "parquet")


def test_lines_and_csv_agree_without_quotes(tmp_path):
    raw = b"a,b\n1,x\n2\n3,y\n"
    first, second = parse_lines(raw, ",", tmp_path), parse_csv(raw, tmp_path)
    assert first.frame.equals(second.frame)
    quoted = parse_csv(raw.replace(b"x", b'"x"'), tmp_path)
    assert quoted.frame.equals(first.frame)
    assert quoted.line_numbers.tolist() == first.line_numbers.tolist() == [2, 4]
    assert quoted.bad == first.bad


def test_a_quoted_text_may_be_long(tmp_path):
    text = "long, " * 50_000
    raw = f'item_id,name\na,"{text}"\nb,short\n'.encode()
    table = read_table(write(tmp_path, raw, "x.item.csv"), "csv")
    assert table.frame["name"].to_list() == [text, "short"]


def test_an_error_shows_the_first_bad_rows_in_the_order_of_the_file(tmp_path):
    lines = [b"u\ta\t%d" % (n if n % 2 else -n) for n in range(1, 30)]
    lines[4] = b"u\ta"
    lines[11] = b"\ta\t-3"
    table = read_table(write(tmp_path, HEADER + b"\n".join(lines)), "atomic")
    table.check_ids("user_id")
    table.check_times("timestamp")
    with pytest.raises(UserError) as e:
        table.refuse_bad_rows()
    first = "row 3: timestamp is '-2', before 1970 (and 14 more rows); correct the file"
    assert f"x.inter: {first}" in str(e.value)
    assert e.value.details[:2] == [
        "row 5: timestamp is '-4', before 1970",
        "row 6: 2 columns, not 3",
    ]
    assert e.value.details[5] == "row 13: user_id is '', empty"
    counts = "13 x timestamp: before 1970; 1 x 2 columns, not 3; 1 x user_id: empty"
    assert e.value.details[9:] == [f"... of 15 bad rows: {counts}"]


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (b",a,b\n0,x,y\n1,z,w\n", [("0", "x", "y"), ("1", "z", "w")]),
        (b"index,a\r0,x\r1,y\r", [("0", "x"), ("1", "y")]),
    ],
)
def test_tables_of_other_programs_are_read(tmp_path, raw, rows):
    table = read_table(write(tmp_path, raw, "x.csv"), "csv")
    assert table.frame.columns[0] == "index"
    assert table.frame.rows() == rows


def test_binary_columns_are_text_or_named(tmp_path):
    columns = {"user_id": [b"u", b"v"], "photo": [b"\xff\xd8", b"\x00"]}
    pl.DataFrame(columns).write_parquet(tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet", "parquet")
    assert table.frame["user_id"].to_list() == ["u", "v"]
    with pytest.raises(UserError, match="photo is of type Binary; save it as text or"):
        table.require("photo")


def test_compressed_files_and_parts_are_read_as_one_file(tmp_path):
    rows = [b"u\ta\t1\n", b"v\tb\t2", b"w\tc\n"]
    whole = write(tmp_path, HEADER + b"\n".join(row.strip() for row in rows))
    expected = read_table(whole, "atomic")
    compressed = tmp_path / "y.inter.gz"
    compressed.write_bytes(gzip.compress(whole.read_bytes()))
    parts = tmp_path / "z.inter"
    parts.mkdir()
    (parts / "_SUCCESS").touch()
    for i, row in enumerate(rows):
        mark, end = (b"\xef\xbb\xbf", b"\r\n") if i == 1 else (b"", b"\n")
        part = mark + (HEADER + row).replace(b"\n", end)
        (parts / f"part-0000{i}").write_bytes(part)
    (parts / "part-00003").touch()
    for path in (tmp_path / "y.inter", parts):
        table = read_table(path, "atomic")
        assert table.frame.equals(expected.frame)
        assert [row[2:] for row in table.rejected_rows()] == [
            ("", "2 columns, not 3", "", "w\tc")
        ]
    compressed.write_bytes(compressed.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"y\.inter\.gz: cannot be decompressed"):
        read_table(tmp_path / "y.inter", "atomic")
    (parts / "part-00001").write_bytes(b"a:token\n1\n")
    with pytest.raises(UserError, match="its parts have different headers"):
        read_table(parts, "atomic")


def test_a_missing_file_names_those_that_are_there(tmp_path):
    write(tmp_path, HEADER, "shop.interactions.csv")
    message = r"shop\.inter\.csv: no such file; .* has shop\.interactions\.csv$"
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "shop.inter.csv", "csv")


def test_parts_of_parquet(tmp_path):
    folder = tmp_path / "x.inter.parquet"
    folder.mkdir()
    for i in range(2):
        pl.DataFrame({"a": [i]}).write_parquet(folder / f"part-{i}.parquet")
    assert read_table(folder, "parquet").frame["a"].to_list() == [0, 1]


def test_many_open_quotes_are_found_in_time(tmp_path):
    raw = b"a,b,c\n" + b'x""",""",y,1\n' * 12_000
    found = parse_csv(raw, tmp_path)
    assert len(found.bad) + len(found.frame) <= 12_000
    assert found.bad


@pytest.mark.parametrize("name", ["*", "^a.*$"])
def test_names_that_are_patterns_are_refused(tmp_path, name):
    table = read_table(write(tmp_path, f"{name},ab\n1,2\n".encode(), "x.csv"), "csv")
    with pytest.raises(UserError, match="would select other columns too; rename"):
        table.check_ids(name)


@pytest.mark.parametrize(
    "text", ["a", " a ", "none of", "0", "", " ", "\t\u00a0", "NaN", "<NA>", "None"]
)
def test_texts_and_columns_have_the_same_rule_of_ids(text):
    problem = pl.DataFrame({"id": [text]}).select(id_problem("id")).item()
    assert (problem is None) == is_id(text)
