"""What every ablation starts from, by data set; and how a point is picked.

A config with a sweep has `sweep(add)`, which calls `add(name, changes)` for every row
of its table, the reference first; changes are by flat key, as in
`{"item_tower.pooling": "cls"}`. Its `get_config("cls")` is that row on MovieLens 100K,
`get_config("cls@amazon_industrial")` on another of `DATA_SETS`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import data_sets
from recjax.config import base

Changes = Mapping[str, Any]
Add = Callable[[str, Changes], None]
PLAIN = re.compile(r"\w[^/@]*")  # a point's name, which is one of a directory
LAYERS = 6  # of the encoder
TOP = 2  # of them, trained where that is not what rows differ in
TOWERS = {"epochs": 12, "lr": 3e-3, "ema": 0.98, "patience": 4}  # on frozen vectors
# The phases where the encoder is trained: before that, while it is, and after it.
BASIS = {**TOWERS, "epochs": 8}
TUNE = "tune"  # name of the phase that trains the encoder
TUNING = {  # each step encodes what its users had; so few and large ones
    "epochs": 3,
    "epoch_steps": 5,
    "lr": 3e-4,
    "schedule": "cosine",
    "warmup": 0.2,
    "ema": 0.8,
    "keep": "last",  # validation falls where the encoder moves below the towers
}
SETTLING = {"epochs": 4, "lr": 1e-3, "ema": 0.98, "patience": 0}
SHARE = 1 / 3  # the encoder's rate over that of the towers: 1e-4


class DataSet(NamedTuple):
    """What ablations have on a data set.

    Attributes:
      describe: sets its keys.
      tuned: batch size of the phase that trains the encoder, and its negatives where
        a step cannot encode the whole catalogue.
    """

    describe: Callable[[ConfigDict], None]
    tuned: Changes


ONLY_THE_BATCH: Changes = {"batch_size": 128, "negatives": "stale"}
DATA_SETS = {
    "ml100k": DataSet(
        data_sets.ml100k,
        {"batch_size": 512},  # most of the catalogue is theirs
    ),
    "amazon_industrial": DataSet(data_sets.amazon_industrial, ONLY_THE_BATCH),
    "amazon_beauty": DataSet(data_sets.amazon_beauty, ONLY_THE_BATCH),
}


def start(data_set: str) -> ConfigDict:
    """A causal transformer over frozen text vectors of a data set, and its training.

    Raises:
      ValueError: no such data set.
    """
    c = base.get_config()
    _choose("data set", data_set, DATA_SETS).describe(c)
    c.user_tower.dropout = 0.3
    c.train.phases = (base.phase("towers", **TOWERS),)
    c.eval.baselines = ("popularity", "transitions")
    return c


def make(
    point: str, sweep: Callable[[Add], None], *, tuned: bool = False, **shared: Any
) -> ConfigDict:
    """The config of one point, locked.

    Args:
      point: name of a point, or name@data_set.
      sweep: of the config's file.
      tuned: whether a row trains the encoder. Then all rows have titles alone as
        texts, and the phase that trains it has what the data set says of it where the
        row leaves that open.
      shared: changes to the reference that all points have, with __ for the dot.

    Raises:
      ValueError: no such point or data set.
    """
    name, _, data_set = point.partition("@")
    data_set = data_set or "ml100k"
    c = start(data_set)
    if tuned:
        c.text.template = c.text.title
    c.update_from_flattened_dict({k.replace("__", "."): x for k, x in shared.items()})
    c = pick(c, name, sweep)
    for phase in c.train.phases:
        if phase.name == TUNE:
            said = DATA_SETS[data_set].tuned
            phase.update({k: x for k, x in said.items() if not phase[k]})
    return c


def pick(c: ConfigDict, point: str, sweep: Callable[[Add], None]) -> ConfigDict:
    """A config with the changes of one point, locked.

    Raises:
      ValueError: no such point.
    """
    c.update_from_flattened_dict(dict(_choose("point", point, read_points(sweep))))
    return c.lock()


def _choose(what: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"no {what} {name!r}; there are {', '.join(known)}")
    return known[name]


def read_points(sweep: Callable[[Add], None]) -> dict[str, Changes]:
    """The points of a sweep in their order, the reference first.

    Raises:
      ValueError: two points of one name, or none, or what is no name.
    """
    points: dict[str, Changes] = {}

    def add(name: str, changes: Changes) -> None:
        if not (isinstance(name, str) and PLAIN.fullmatch(name)):
            raise ValueError(f"{name!r} is no name of a point, a word without / and @")
        if name in points:
            raise ValueError(f"two points are called {name!r}")
        points[name] = dict(changes)  # a loop may go on changing its own

    sweep(add)
    if not points:
        raise ValueError("the sweep has no point")
    return points
