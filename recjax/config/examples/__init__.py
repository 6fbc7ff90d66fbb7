"""Configs that are installed with the package: `--config=quickstart`."""
