"""A run from its config to its results: setup, training, dry runs."""
