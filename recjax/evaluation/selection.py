"""The value by which validation chooses epochs and the weights of score fusion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recjax.common.errors import UserError
from recjax.data.dataset import Data
from recjax.evaluation.metrics import MetricValues
from recjax.evaluation.subgroups import item_groups


class Selection:
    """Averages a metric over the validation examples.

    Args:
      metric: name of the metric.
      weights: of new, cold and warm targets, so that the few new ones can count as much
        as the others; empty counts every example equally.
      data: the data set.

    Raises:
      UserError: no validation example has a target with a weight.
    """

    def __init__(self, metric: str, weights: Sequence[float], data: Data):
        self.metric = metric
        groups = item_groups(data, data.valid)
        self.groups = {name: mask_R for name, mask_R in groups.items() if mask_R.any()}
        self.weights = dict(zip(groups, weights, strict=True)) if weights else {}
        if weights and not sum(self.weights[name] for name in self.groups):
            raise UserError(
                f"train.group_weights: {tuple(weights)}, but the validation has only "
                f"{', '.join(self.groups)} targets"
            )

    def __call__(self, values: MetricValues) -> float:
        """Returns the value that chooses, from those of all examples in order."""
        if not self.weights:
            return float(values[self.metric].mean())
        means = self.by_group(values)
        weights = [self.weights[name] for name in means]
        return float(np.average(list(means.values()), weights=weights))

    def by_group(self, values: MetricValues) -> dict[str, float]:
        """Returns the mean of the metric for each group with examples."""
        value_R = values[self.metric]
        return {name: float(value_R[x_R].mean()) for name, x_R in self.groups.items()}


def make_selection(config: Any, data: Data) -> Selection:
    """Returns the selection that `config.train` describes."""
    return Selection(config.train.metric, config.train.group_weights, data)
