"""Personalised recommendation with pretrained language models, in JAX.

    import recjax

    config = recjax.config.get_config()
    results = recjax.train(config, "runs/first")
    model = recjax.load("runs/first")
    lists = model.recommend(users="all", k=10)

The names are loaded on first use, so that `import recjax` does not import JAX.
"""

import importlib
from typing import Any

__all__ = ["Model", "__version__", "config", "load", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("recjax.run.train").run
    if name in ("Model", "load"):
        model = importlib.import_module("recjax.inference.model").Model
        return model if name == "Model" else model.from_pretrained
    if name == "config":
        return importlib.import_module("recjax.config")
    raise AttributeError(f"module 'recjax' has no attribute {name!r}")
