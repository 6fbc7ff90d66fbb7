"""The type of a metric: its value and the ends of its confidence interval, by name."""

Interval = dict[str, float]
