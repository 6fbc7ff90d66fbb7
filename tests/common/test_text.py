"""Tests of text that comes from data."""

import pytest

from recjax.common.errors import UserError
from recjax.common.text import escape_markdown, shorten, visible, visible_lines

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Caf\u00e9 \u732b \U0001f63a", "Caf\u00e9 \u732b \U0001f63a"),
        ("\x1b[2J\x07bell", r"\x1b[2J\x07bell"),
        ("two\nlines\r\tend", r"two\nlines\r\tend"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("no\u00a0break", "no break"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("\udce9", r"\udce9"),
        ("\u2028", " "),
        ("", ""),
    ],
)
def test_control_characters_are_visible(text, shown):
    assert visible(text) == shown
    assert str(UserError(f"title: {text}")) == f"title: {shown}"


def test_lines_stay_lines():
    assert visible_lines("a\nb\x1b\n") == "a\nb\\x1b\n"


def test_long_titles_end_with_an_ellipsis():
    assert shorten("x" * 80, 80) == "x" * 80
    assert shorten("word " * 20, 11) == "word word\u2026"


def test_pages_show_markdown_and_html_as_text():
    raw = "<script>[a](b) *c* `d` | _e_ # &amp;"
    escaped = escape_markdown(raw)
    assert escaped.replace("\\", "") == raw
    for character in "<>[]*`|_#&":
        assert f"\\{character}" in escaped
