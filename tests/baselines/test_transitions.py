"""Both rules against three loops."""

import numpy as np
import pytest

from recjax.baselines import BASELINES
from tests.baselines import naive

pytestmark = pytest.mark.unit


def rule(all_positions):
    """Returns the six numbers of `transitions.Rule`, as published."""
    return (4, 0.6, 0.3, 8, 0.7, 1) if all_positions else (4, 0.5, 0, 6, 0.5, 5)


@pytest.mark.parametrize("name", ["transitions", "repeat_transitions"])
def test_against_loops(data, batches, name):
    rows, num_items = data.train, data.num_items
    repeats = name == "repeat_transitions"

    def asked(items, place):
        """An item, or one of a second catalogue where it came before."""
        before = repeats and items[place] in items[:place]
        return items[place] + num_items * before

    steps, decay, backward, newest, fade, damping = rule(rows.all_positions)
    counts = np.zeros((2 * num_items, num_items))
    for row in range(len(rows)):
        items = rows.sequence(row)
        for later in range(len(items)) if rows.all_positions else [len(items) - 1]:
            for step in range(1, min(steps, later) + 1):
                older, weight = later - step, decay ** (step - 1)
                counts[asked(items, older), items[later]] += weight
                counts[asked(items, later), items[older]] += backward * weight
    want = np.tile(naive.tie_break(rows, num_items), (len(naive.histories(batches)), 1))
    for row, history in enumerate(naive.histories(batches)):
        for back in range(min(newest, len(history))):
            item = asked(history, len(history) - 1 - back)
            want[row] += fade**back * counts[item] / (counts[item].sum() + damping)

    baseline = BASELINES[name](0)
    baseline.fit(rows, num_items)
    np.testing.assert_allclose(naive.score(baseline, batches), want, rtol=1e-5)


def test_histories_are_long_enough(batches):
    """Or the test above would not see how many items are asked."""
    assert max(len(history) for history in naive.histories(batches)) == 9
