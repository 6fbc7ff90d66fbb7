"""The key of an error: the config key, flag or file that it is about."""

import pytest

from recjax.common.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("message", "given", "key"),
    [
        ("data.split: 'x' is not one of: a, b", None, "data.split"),
        ("no training data", None, None),
        ("a template does not fit", "text.template", "text.template"),
        ("out: full", "--out", "--out"),
    ],
)
def test_an_error_has_a_key(message, given, key):
    error = UserError(message, key=given)
    assert error.key == key
    assert str(error) == message
