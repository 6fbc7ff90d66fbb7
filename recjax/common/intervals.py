"""The type of a metric's value with its confidence interval."""

Interval = dict[str, float]
