"""The value of a metric with its interval."""

Interval = dict[str, float]
