"""Ablations: each file is a config with a `sweep`, whose points are rows of a table."""
