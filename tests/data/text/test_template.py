"""Tests of the texts that a template makes."""

import pytest

from recjax.data.text.template import fill_template, parse_template

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("{a}. {b}", "xy", "x. y"),
        ("{a}. {b}", " y", "y"),
        ("{a}. {b}", "x ", "x"),
        ("{a}. {b}", "  ", ""),
        ("{a}. {b}.", "x ", "x."),
        ("{a} ({b})", "x ", "x"),
        ("{a} ({b})", " y", "(y)"),
        ("{a} ({b}). {c}", "x z", "x. z"),
        ("({a}) {b}", " y", "y"),
        ("{a}, {b}; {c}", "x z", "x; z"),
        ("{a} ({b}, {c})", "xy ", "x (y)"),
        ("Title: {a} by {b}", " y", "Title: y"),
        ("Title: {a} by {b}", "x ", "Title: x"),
        ("{{{a}}} {b}", "xy", "{x} y"),
        ("only text", "xy", "only text"),
    ],
)
def test_empty_fields_leave_no_separator(template, values, text):
    parts = parse_template(template, "abc", "text.template")
    row = {
        name: value.strip() for name, value in zip("abc", f"{values:3}", strict=True)
    }
    assert fill_template(parts, row) == text
