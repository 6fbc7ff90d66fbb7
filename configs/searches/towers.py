"""Width, depth, dropout and learning rate of the towers over frozen text and ids.

    python -m experiments.search --config=configs/searches/towers.py \
        --out=runs/search

Half a minute per trial on MovieLens 100K and one CPU core.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.ablations import reference


def get_config() -> ConfigDict:
    """Returns the config that the trials change."""
    config = reference.start(reference.DATA_SETS["ml100k"])
    config.item_tower.sources = ("id", "text")
    return config.lock()


def search(trial: Any) -> dict[str, Any]:
    """Samples the changes of one trial, by flat key.

    Args:
      trial: an `optuna.Trial`.
    """
    return {
        "item_tower.width": trial.suggest_categorical("width", [32, 64, 128]),
        "user_tower.num_layers": trial.suggest_int("layers", 1, 3),
        "user_tower.dropout": trial.suggest_float("dropout", 0.0, 0.6, step=0.1),
        "loss.smoothing": trial.suggest_float("smoothing", 0.0, 0.3, step=0.1),
        "train.phases[0].lr": trial.suggest_float("lr", 3e-4, 1e-2, log=True),
    }
