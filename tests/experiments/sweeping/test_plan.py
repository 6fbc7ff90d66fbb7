"""What points have to have alike to stand in one table."""

from experiments.sweeping.plan import protocol_of
from recjax.config import base


def test_what_decides_about_the_protocol():
    before = base.get_config()
    asked = protocol_of(before)
    for key, value, same in (
        ("data.user_table", not before.data.user_table, True),  # of groups alone
        ("data.reverse", 0.5, True),
        ("data.history_length", 7, False),
        ("eval.mask_seen", not before.eval.mask_seen, False),
    ):
        c = base.get_config()
        c.update_from_flattened_dict({key: value})
        assert (protocol_of(c) == asked) == same, key
