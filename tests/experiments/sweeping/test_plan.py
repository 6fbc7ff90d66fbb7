"""The config keys that variants of one table have in common."""

import pytest

from experiments.sweeping.plan import protocol_of
from recjax.config import base

pytestmark = pytest.mark.unit


def test_keys_that_decide_the_protocol():
    before = base.get_config()
    protocol = protocol_of(before)
    for key, value, same in (
        ("data.user_table", not before.data.user_table, True),  # only defines subgroups
        ("data.reverse", 0.5, True),
        ("data.history_length", 7, False),
        ("eval.mask_seen", not before.eval.mask_seen, False),
    ):
        config = base.get_config()
        config.update_from_flattened_dict({key: value})
        assert (protocol_of(config) == protocol) == same, key
