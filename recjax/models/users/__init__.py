"""User towers: a history of item vectors -> one user vector per prefix."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from recjax.models.users.additive import AdditiveTower
from recjax.models.users.cnn import CnnTower
from recjax.models.users.graph import GraphTower
from recjax.models.users.gru import GruTower
from recjax.models.users.mean import MeanTower
from recjax.models.users.transformer import TransformerTower

__all__ = ["BIDIRECTIONAL", "HAS_HEADS", "POSITIONS", "USER_TOWERS", "USES_GRAPH"]

POSITIONS = ("absolute", "relative")


def _transformer(c: Any, length: int, dtype: Any, **options: Any) -> nn.Module:
    return TransformerTower(
        c.position,
        length,
        c.num_layers,
        c.num_heads,
        c.mlp_ratio,
        c.dropout,
        dtype,
        **options,
    )


# Made of `config.user_tower`, H and the type that is computed in. A history without its
# padding must give the same: evaluation cuts it off.
USER_TOWERS: dict[str, Callable[[Any, int, Any], nn.Module]] = {
    "mean": lambda c, length, dtype: MeanTower(),
    "additive": lambda c, length, dtype: AdditiveTower(
        c.num_heads, c.hidden, c.dropout, dtype
    ),
    "gru": lambda c, length, dtype: GruTower(c.num_layers, c.dropout, dtype),
    "cnn": lambda c, length, dtype: CnnTower(
        c.num_layers, c.kernel_size, c.dropout, dtype
    ),
    "transformer": _transformer,
    "bert4rec": lambda c, length, dtype: _transformer(
        c, length, dtype, bidirectional=True
    ),
    "graph": lambda c, length, dtype: GraphTower(),
}
BIDIRECTIONAL = ("bert4rec",)  # asked for items that are hidden, not for the next
HAS_HEADS = ("additive", "transformer", "bert4rec")  # with attention heads
USES_GRAPH = ("graph",)  # over item vectors that went through the training graph
