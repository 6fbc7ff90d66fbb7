"""User towers by name: a history of item vectors -> a user vector per prefix."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from recjax.models.users.additive import AdditiveTower
from recjax.models.users.cnn import CnnTower
from recjax.models.users.gru import GruTower
from recjax.models.users.mean import GraphTower, MeanTower
from recjax.models.users.recency import RecencyTower
from recjax.models.users.transformer import TransformerTower

POSITIONS = ("absolute", "relative")


def _make_transformer(
    config: Any,
    length: int,
    dtype: Any,
    *,
    bidirectional: bool = False,
    gated: bool = False,
) -> nn.Module:
    shape = config.num_layers, config.num_heads, config.mlp_ratio
    options = config.dropout, dtype, bidirectional, config.filter_share, gated
    return TransformerTower(config.position, length, *shape, *options, config.time)


# Called with `config.user_tower`, H and the dtype of the computation. A tower maps
# `(history_BxHxD, mask_BxH, train)` to users_BxHxD, where position h sees the items up
# to h. It must return the same vectors without padding, because evaluation shortens
# histories.
USER_TOWERS: dict[str, Callable[[Any, int, Any], nn.Module]] = {
    "mean": lambda config, length, dtype: MeanTower(),
    "additive": lambda config, length, dtype: AdditiveTower(
        config.num_heads, config.hidden, config.dropout, dtype
    ),
    "gru": lambda config, length, dtype: GruTower(
        config.num_layers, config.dropout, dtype
    ),
    "cnn": lambda config, length, dtype: CnnTower(
        config.num_layers, config.kernel_size, config.dropout, dtype
    ),
    "transformer": _make_transformer,
    "hstu": partial(_make_transformer, gated=True),
    "bert4rec": partial(_make_transformer, bidirectional=True),
    "graph": lambda config, length, dtype: GraphTower(),
}
BIDIRECTIONAL = ("bert4rec",)  # predict hidden items instead of the next one
HAS_HEADS = ("additive", "transformer", "hstu", "bert4rec")  # use `num_heads`
HAS_TIME_BIAS = ("transformer", "hstu")  # with `time`, receive `times_BxH` too
USES_GRAPH = ("graph",)  # read item vectors after graph propagation


def inner_width(config: Any, width: int) -> int:
    """Returns the width inside the tower of `config.user_tower`, given D."""
    return int(config.width or width) if config.recency else width


def make_user_tower(config: Any, length: int, width: int, dtype: Any) -> nn.Module:
    """Builds the user tower that `config.user_tower` describes.

    Args:
      config: the section of the config.
      length: maximum history length H.
      width: width D of item and user vectors.
      dtype: number format of the computation.
    """
    tower = USER_TOWERS[config.name](config, length, dtype)
    if not config.recency:
        return tower
    # A plain mean has nothing to add to the recency-weighted one.
    deep = None if config.name == "mean" else tower
    return RecencyTower(length, inner_width(config, width), deep)
