"""What differs between two configs, in words."""

import pytest

from recjax.common.config import describe_changes

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1}, {"a": 2}, "a: 1 before, 2 now"),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "a.b: [1] before, [2] now"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "a[0].b: 1 before, 2 now"),
        ({}, {"a": None}, "a: nothing before, None now"),
        ({"a": 1, "b": 2}, {}, "a: 1 before, nothing now; b: 2 before, nothing now"),
    ],
)
def test_changes_are_described(before, now, text):
    assert describe_changes(before, now) == text


def test_the_first_three_changes_are_shown():
    before, now = dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 1)
    text = describe_changes(before, now, names=("saved", "current"))
    assert text.startswith("a: 0 saved, 1 current; b: ")
    assert text.endswith("c: 0 saved, 1 current; 2 more")
    assert describe_changes(before, now, limit=None).count("; ") == 4
