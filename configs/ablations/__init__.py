"""Ablations: the `sweep` of each config defines the rows of a table."""
