"""Both transition rules against nested loops."""

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
    examples, num_items = data.train, data.num_items
    repeats = name == "repeat_transitions"

    def state(items, position):
        """An item, or its number in a second catalogue if it is repeated."""
        repeated = repeats and items[position] in items[:position]
        return items[position] + num_items * repeated

    steps, decay, backward, num_recent, recency, damping = rule(examples.all_positions)
    counts = np.zeros((2 * num_items, num_items))
    for i in range(len(examples)):
        items = examples.sequence(i)
        for later in range(len(items)) if examples.all_positions else [len(items) - 1]:
            for step in range(1, min(steps, later) + 1):
                older, weight = later - step, decay ** (step - 1)
                counts[state(items, older), items[later]] += weight
                counts[state(items, later), items[older]] += backward * weight
    want = np.tile(
        naive.tie_break(examples, num_items), (len(naive.histories(batches)), 1)
    )
    for row, history in enumerate(naive.histories(batches)):
        for back in range(min(num_recent, len(history))):
            item = state(history, len(history) - 1 - back)
            want[row] += recency**back * counts[item] / (counts[item].sum() + damping)

    baseline = BASELINES[name](0)
    baseline.fit(examples, num_items)
    np.testing.assert_allclose(naive.score(baseline, batches), want, rtol=1e-5)


def test_histories_are_long_enough(batches):
    """The test above needs histories with more items than the rules use."""
    assert max(len(history) for history in naive.histories(batches)) == 9
