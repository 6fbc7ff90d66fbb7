"""Both rules against three loops."""

import numpy as np

from recjax.baselines import Transitions
from tests.baselines import naive


def rule(every_prefix):
    """(steps, decay, backward, newest, fade, damping), as published."""
    return (4, 0.6, 0.3, 8, 0.7, 1) if every_prefix else (4, 0.5, 0, 6, 0.5, 5)


def test_against_loops(data, batches):
    rows, num_items = data.train, data.num_items
    steps, decay, backward, newest, fade, damping = rule(rows.every_prefix)
    counts = np.zeros((num_items, num_items))
    for row in range(len(rows)):
        items = rows.sequence(row)
        for later in range(len(items)) if rows.every_prefix else [len(items) - 1]:
            for step in range(1, min(steps, later) + 1):
                pair = items[later - step], items[later]
                counts[pair] += decay ** (step - 1)
                counts[pair[::-1]] += backward * decay ** (step - 1)
    want = np.tile(naive.tie_break(rows, num_items), (len(naive.shown(batches)), 1))
    for row, history in enumerate(naive.shown(batches)):
        for back, item in enumerate(history[::-1][:newest]):
            want[row] += fade**back * counts[item] / (counts[item].sum() + damping)

    baseline = Transitions(0)
    baseline.fit(rows, num_items)
    np.testing.assert_allclose(naive.score(baseline, batches), want, rtol=1e-5)


def test_histories_are_long_enough(batches):
    """Or the test above would not see how many items are asked."""
    assert max(len(history) for history in naive.shown(batches)) == 9
