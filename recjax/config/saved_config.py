"""A config file whose argument is a saved config: `saved_config.py:RUN/config.json`."""

from ml_collections import ConfigDict

from recjax.config.load import load_json


def get_config(path: str) -> ConfigDict:
    """Returns the saved config."""
    return load_json(path)
