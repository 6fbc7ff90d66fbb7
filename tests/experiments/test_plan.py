"""What points have to have alike to stand in one table."""

from configs import base
from experiments.plan import protocol_of


def test_what_decides_about_the_protocol():
    asked = protocol_of(base.get_config())
    for key, value, same in (
        (
            "data.user_table",
            not base.get_config().data.user_table,
            True,
        ),  # of groups alone
        ("data.reverse", 0.5, True),
        ("data.history_length", 7, False),
        ("eval.mask_seen", not base.get_config().eval.mask_seen, False),
    ):
        c = base.get_config()
        c.update_from_flattened_dict({key: value})
        assert (protocol_of(c) == asked) == same, key
