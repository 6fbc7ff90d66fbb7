"""Figures of papers: what is read, and that a slip is named with its place."""

import pytest

from experiments.tabling.published import read_published
from recjax.common.errors import UserError

pytestmark = pytest.mark.unit


def read(tmp_path, text, metrics=("hr@10", "ndcg@10")):
    path = tmp_path / "published.csv"
    path.write_text(text)
    return read_published(path, metrics)


def test_rows(tmp_path):
    text = (
        'name,source,hr@5,ndcg@10,note,data\n"A, B",Paper,0.3,0.1,,\n\n'
        "C,Other,,,why,MIND\n"
    )
    first, second = read(tmp_path, text)
    assert (first.label, first.source, first.note) == ("A, B (published)", "Paper", "")
    assert first.values == {"ndcg@10": [0.1]}
    assert (second.values, second.note) == ({}, "why")
    assert second.label == "C, on MIND (published)"
    assert not first.cost
    assert not first.intervals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'name'"),
        ("name,hr@10\nA,0.1\n", "has no column 'source'"),
        ("name,source,HR@10\nA,B,0.1\n", "column 'HR@10' is neither"),
        ("name,source,hr@10,hr@10\nA,B,0.1,0.2\n", "two columns have the same name"),
        ("name,source,hr@5\nA,B,0.1\n", "has none of hr@10, ndcg@10"),
        ("name,source,hr@10\n", "has no rows"),
        ("name,source,hr@10\nA,B,0.1\nC,D\n", "row 3: 2 cells under 3 columns"),
        ("name,source,hr@10\n\nC,D\n", "row 3: 2 cells under 3 columns"),
        ("name,source,hr@10\nA,B,0.1,0.2\n", "row 2: 4 cells under 3 columns"),
        ("name,source,hr@10\nA,,0.1\n", "row 2: needs a name and a source"),
        ("name,source,hr@10\nA,B,x\n", "row 2, column hr@10: 'x' is not a fraction"),
        ("name,source,hr@10\nA,B,nan\n", "column hr@10: 'nan' is not a fraction"),
        ("name,source,hr@10\nA,B,15.9\n", "column hr@10: '15.9' is not a fraction"),
        ('name,source,hr@10\n"A,B,0.1\n', "is not a CSV file"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, message):
    with pytest.raises(UserError, match="published.csv: .*" + message):
        read(tmp_path, text)


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "published.csv"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UserError, match="is not a CSV file"):
        read_published(path, ["hr@10"])
