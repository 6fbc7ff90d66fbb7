"""Personalised recommendation with pretrained language models, in JAX.

    import recjax

    config = recjax.config.get_config()
    results = recjax.train(config, "runs/first")

The names are loaded on first use, so that `import recjax` does not import JAX.
"""

import importlib
from typing import Any

__all__ = ["__version__", "config", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("recjax.run.train").run
    if name == "config":
        return importlib.import_module("recjax.config")
    raise AttributeError(f"module 'recjax' has no attribute {name!r}")
