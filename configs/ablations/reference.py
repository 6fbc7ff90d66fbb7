"""The reference model that all ablations start from, by data set.

`get_config("cls")` of an ablation is its variant `cls` on MovieLens 100K,
`get_config("cls@amazon_industrial")` the same variant on another of `DATA_SETS`, and
`get_config("cls@shop.py")` on the data set that this file defines.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import data_sets
from recjax.config import base
from recjax.config.load import explain, load_module
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


def find_data_set(name: str) -> DataSet:
    """Returns a data set of `DATA_SETS`, or the one that a Python file defines.

    The file has a function `describe(config)` and, optionally, a dict `TUNED`; see
    `DataSet`.

    Raises:
      ValueError: no such data set, or a key in `TUNED` that phases do not have.
      UserError: the file cannot be read, or has no function `describe`.
    """
    if not name.endswith(".py"):
        if name not in DATA_SETS:
            known = ", ".join(DATA_SETS)
            raise ValueError(
                f"no data set {name!r}; choose one of {known}, or write FILE.py"
            )
        return DATA_SETS[name]
    module = load_module(name, "data set", "describe")
    tuned = getattr(module, "TUNED", ONLY_THE_BATCH)
    try:
        base.phase(TUNE, **tuned)
    except (AttributeError, KeyError, TypeError) as e:
        raise ValueError(f"{name}: TUNED: {' '.join(explain(e))}") from None
    return DataSet(module.describe, tuned)


def start(data_set: DataSet) -> ConfigDict:
    """Returns a causal transformer over frozen text vectors of a data set."""
    config = base.get_config()
    data_set.describe(config)
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
      variant: name of a variant, or name@data_set, see `find_data_set`.
      sweep: the function of the config's file.
      tuned: whether some variant trains the encoder. Then the texts of all variants
        are titles only, and the phase that trains the encoder takes the keys of the
        data set's `tuned` that the variant does not set.
      prepare: changes the reference in all variants, before `shared`.
      shared: changes to the reference in all variants, with __ for the dot.

    Raises:
      ValueError: no such variant or data set.
      UserError: a file with a data set cannot be read.
    """
    name, _, data_set_name = variant.partition("@")
    data_set = find_data_set(data_set_name or "ml100k")
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
            tuned_keys = data_set.tuned.items()
            phase.update({key: value for key, value in tuned_keys if not phase[key]})
    return config
