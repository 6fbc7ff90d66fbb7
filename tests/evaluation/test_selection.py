"""The value by which validation chooses."""

import numpy as np
import pytest

from recjax.common.errors import UserError
from recjax.data.dataset import count_events
from recjax.data.splits import load_data
from recjax.evaluation.selection import make_selection

pytestmark = pytest.mark.unit


def select(config, weights, cold_items=0.3):
    c = config.copy_and_resolve_references().unlock()
    c.data.cold_items, c.train.group_weights = cold_items, weights
    data = load_data(c)
    return data, make_selection(c, data)


def test_weighted_mean_of_the_groups(config):
    values = {"ndcg@10": np.random.default_rng(0).random(1000)}
    data, selection = select(config, ())
    values = {"ndcg@10": values["ndcg@10"][: len(data.valid)]}
    assert selection(values) == pytest.approx(values["ndcg@10"].mean())
    events_R = count_events(data)[data.valid.targets_R]
    new, warm = events_R == 0, events_R > 4
    assert new.any()
    assert warm.any()
    means = {
        name: values["ndcg@10"][mask].mean() for name, mask in selection.groups.items()
    }
    assert means["new"] == values["ndcg@10"][new].mean()
    assert means["warm"] == values["ndcg@10"][warm].mean()
    assert select(config, (1, 0, 0))[1](values) == pytest.approx(means["new"])
    both = select(config, (1, 0, 3))[1](values)
    assert both == pytest.approx((means["new"] + 3 * means["warm"]) / 4)
    # A group without examples has no part in the mean.
    alone, selection = select(config, (5, 0, 1), cold_items=0.0)
    assert "new" not in selection.groups
    values = {"ndcg@10": values["ndcg@10"][: len(alone.valid)]}
    warm_R = selection.groups["warm"]
    assert selection(values) == pytest.approx(values["ndcg@10"][warm_R].mean())


def test_weights_without_any_example_are_refused(config):
    with pytest.raises(
        UserError, match=r"train.group_weights: \(1, 0, 0\), but the val"
    ):
        select(config, (1, 0, 0), cold_items=0.0)
