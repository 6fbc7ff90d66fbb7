"""Tests of the page of all errors."""

from pathlib import Path

import pytest

from experiments import errors

pytestmark = pytest.mark.unit


def test_the_page_has_all_errors_of_the_code():
    page = Path("recjax/ERRORS.md").read_text(encoding="utf-8")
    assert page == errors.page(), "run python -m experiments.errors > recjax/ERRORS.md"


def test_parts_of_a_message(tmp_path):
    path = tmp_path / "code.py"
    path.write_text(
        'def f(x):\n    raise UserError(f"seed: {x} is not {x + 1}; choose another")\n'
        "    UserError(message)\n"
    )
    messages = list(errors.find_messages(path))
    assert messages == ["seed: <x> is not <x + 1>; choose another", "<message>"]
    assert errors.split_message(messages[0]) == [
        "seed",
        r"\<x> is not \<x + 1>",
        "choose another",
    ]
