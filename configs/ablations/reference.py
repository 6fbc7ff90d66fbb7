"""The reference model that all ablations start from, by data set.

`get_config("cls")` of an ablation is its variant `cls` on MovieLens 100K,
`get_config("cls@amazon_industrial")` the same variant on another of `DATA_SETS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import data_sets
from recjax.config import base
from recjax.config.variants import Add, Changes, pick

LAYERS = 6  # of the encoder
TOP = 2  # layers that are trained in ablations of anything but freezing
TOWERS = {"epochs": 12, "lr": 3e-3, "ema": 0.98, "patience": 4}  # on frozen vectors
# The phases of ablations that train the encoder: before, during and after that.
BASIS = {**TOWERS, "epochs": 8}
TUNE = "tune"  # name of the phase that trains the encoder
TUNING = {  # a step encodes all texts of its batch; therefore few steps with many users
    "epochs": 3,
    "epoch_steps": 5,
    "lr": 3e-4,
    "schedule": "cosine",
    "warmup": 0.2,
    "ema": 0.8,
    "keep": "last",  # validation drops at first, as the towers fit the old encoder
}
SETTLING = {"epochs": 4, "lr": 1e-3, "ema": 0.98, "patience": 0}
SHARE = 1 / 3  # learning rate of the encoder / that of the towers, which gives 1e-4


class DataSet(NamedTuple):
    """Settings of a data set that all ablations share.

    Attributes:
      describe: sets the keys of the data set.
      tuned: keys of the phase that trains the encoder: its batch size, and its
        negatives if a step cannot encode the complete catalogue.
    """

    describe: Callable[[ConfigDict], None]
    tuned: Changes


ONLY_THE_BATCH: Changes = {"batch_size": 128, "negatives": "stale"}
DATA_SETS = {
    "ml100k": DataSet(
        data_sets.ml100k,
        {"batch_size": 512},  # its users have most of the catalogue in their histories
    ),
    "amazon_industrial": DataSet(data_sets.amazon_industrial, ONLY_THE_BATCH),
    "amazon_beauty": DataSet(data_sets.amazon_beauty, ONLY_THE_BATCH),
}


def start(data_set: str) -> ConfigDict:
    """Returns a causal transformer over frozen text vectors of a data set.

    Raises:
      ValueError: no such data set.
    """
    config = base.get_config()
    if data_set not in DATA_SETS:
        known = ", ".join(DATA_SETS)
        raise ValueError(f"no data set {data_set!r}; choose one of {known}")
    DATA_SETS[data_set].describe(config)
    config.user_tower.dropout = 0.3
    config.train.phases = (base.phase("towers", **TOWERS),)
    config.eval.baselines = ("popularity", "transitions")
    return config


def make(
    variant: str,
    sweep: Callable[[Add], None],
    *,
    tuned: bool = False,
    prepare: Callable[[ConfigDict], None] | None = None,
    **shared: Any,
) -> ConfigDict:
    """Returns the config of one variant, locked.

    Args:
      variant: name of a variant, or name@data_set.
      sweep: the function of the config's file.
      tuned: whether some variant trains the encoder. Then the texts of all variants
        are titles only, and the phase that trains the encoder takes the keys of the
        data set's `tuned` that the variant does not set.
      prepare: changes the reference in all variants, before `shared`.
      shared: changes to the reference in all variants, with __ for the dot.

    Raises:
      ValueError: no such variant or data set.
    """
    name, _, data_set = variant.partition("@")
    data_set = data_set or "ml100k"
    config = start(data_set)
    if tuned:
        config.text.template = config.text.title
    if prepare is not None:
        prepare(config)
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in shared.items()}
    )
    config = pick(config, name, sweep)
    for phase in config.train.phases:
        if phase.name == TUNE:
            defaults = DATA_SETS[data_set].tuned
            phase.update({k: value for k, value in defaults.items() if not phase[k]})
    return config
