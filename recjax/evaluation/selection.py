"""The value by which validation chooses epochs and the weights of score fusion."""

from typing import Any

import numpy as np

from recjax.data.dataset import Data
from recjax.evaluation.metrics import MetricValues
from recjax.evaluation.subgroups import item_groups


class Selection:
    """Averages the metrics of the validation examples.

    Args:
      metric: name of the metric that chooses.
      average: 'micro' is the mean over the examples; 'macro' over the means of new,
        cold and warm targets, so that the few new ones count as much as the others.
      data: the data set.
    """

    def __init__(self, metric: str, average: str, data: Data):
        self.metric = metric
        self.average = average
        groups = item_groups(data, data.valid)
        self.groups = {name: mask_R for name, mask_R in groups.items() if mask_R.any()}

    def __call__(self, values: MetricValues) -> float:
        """Returns the value that chooses, from those of all examples in order."""
        value_R = values[self.metric]
        if self.average == "micro":
            return float(value_R.mean())
        return float(
            np.mean([value_R[mask_R].mean() for mask_R in self.groups.values()])
        )

    def by_group(self, values: MetricValues) -> dict[str, float]:
        """Returns the mean of the metric for each group with examples."""
        value_R = values[self.metric]
        return {
            f"{name}/{self.metric}": float(value_R[mask_R].mean())
            for name, mask_R in self.groups.items()
        }


def make_selection(config: Any, data: Data) -> Selection:
    """Returns the selection that `config.train` describes."""
    return Selection(config.train.metric, config.train.metric_average, data)
