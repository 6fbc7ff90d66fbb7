"""Builds configs: the default config, training phases, and rules that freeze weights.

A config is `base.get_config()` with some keys changed, in a Python file or on the
command line (`--config.item_tower.width=128`).
`python -m recjax.main --help_config` prints every key.
"""

from typing import Any

from ml_collections import ConfigDict

from recjax.config.keys import PHASE, SECTIONS
from recjax.config.schema import Key

ENCODER = r"items/text/encoder/"


def get_config() -> ConfigDict:
    """Returns the default config, locked: text items, causal transformer, softmax."""
    sections = {section: _defaults(keys) for section, keys in SECTIONS.items()}
    config = ConfigDict(sections.pop("") | sections)
    config.train.phases = (phase("towers"),)
    return config.lock()  # a misspelt key is an error


def phase(name: str, **changes: Any) -> ConfigDict:
    """Returns one phase; flags change it: `'--config.train.phases[0].lr=1e-4'`.

    `changes` are the keys of `recjax.config.keys.PHASE` that differ from their default.
    """
    config = ConfigDict(_defaults(PHASE))
    config.name = name
    config.lr_mults = freeze("all")
    config.lock().update(changes)  # refuses keys that do not exist
    return config


def tune_encoder(
    what: str | int, *, layers: int | None = None, layer_decay: float = 1.0
) -> tuple[tuple[str, float | None], ...]:
    """Returns rules that train the encoder of a model that starts zero-shot.

    What begins at zero stays frozen, so that the encoder alone learns from behaviour;
    the weights by recency and the scale of the scores, which are few, learn faster.

    Args:
      what: see `freeze`.
      layers: see `freeze`.
      layer_decay: see `freeze`.
    """
    encoder = freeze(what, layers=layers, layer_decay=layer_decay)[:-1]
    return (
        *encoder,
        (r"items/text/project/.*", 0.1),
        (r"head/log_scale|users/log_weight", 10.0),
        (r".*", None),
    )


def start_zero_shot(config: ConfigDict, *, width: int = 384) -> None:
    """Sets the keys of a model that ranks as the zero-shot row before any training.

    Everything that training adds begins at zero: ids, user tower and biases. See "The
    zero-shot start" in `recjax/models/README.md`.

    Args:
      config: the config, which is changed; its `item_tower.sources` contain `text`,
        and `eval.mask_seen` is set.
      width: of item and user vectors, at most that of the text encoder.
    """
    config.item_tower.init = "zero_shot"
    config.item_tower.width = width
    config.user_tower.recency = True
    config.user_tower.width = min(width, 64)
    config.head.name = "two_tower"
    config.head.temperature = 0.1
    config.head.bias = True
    config.head.event_bias = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, -0.5)
    if not config.eval.mask_seen:
        config.head.seen_bias = (0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0)
    if "id" in config.item_tower.sources:
        config.optim.shared_moment = (r"items/id/.*",)


def _defaults(keys: dict[str, Key]) -> dict[str, Any]:
    return {name: key.default for name, key in keys.items()}


def freeze(
    what: str | int,
    *,
    layers: int | None = None,
    encoder: float = 1.0,
    layer_decay: float = 1.0,
) -> tuple[tuple[str, float | None], ...]:
    """Returns rules for the text encoder; everything else trains at multiplier 1.

    Args:
      what: 'all', 'none', 'embeddings', or k to train the top k layers (and the
        pooling above them); 'lora' or 'bias' to train only these parameters of the
        encoder (with `text.lora_rank`: Hu et al., 2022; BitFit: Ben Zaken et al.,
        2022).
      layers: number of layers of the encoder; required for k, and for `layer_decay`.
      encoder: learning-rate multiplier of the encoder's trained weights.
      layer_decay: of k or 'none', multiplier of a layer relative to the one above it
        (Howard and Ruder, ULMFiT, 2018).

    Raises:
      ValueError: unknown `what`, or a number of layers that does not fit.
    """
    frozen = (ENCODER + r".*", None)
    rest = (r".*", 1.0)
    if what in ("all", 0):
        return (frozen, rest)
    top: range | None = None  # the trained layers, if their number is given
    if isinstance(what, int) and layers is not None and 0 < what <= layers:
        top = range(layers - what, layers)
    if layer_decay != 1.0:
        if layers is None or (top is None and what != "none"):
            raise ValueError(f"freeze: layer_decay with {what!r} and layers={layers}")
        by_layer = tuple(
            (rf"{ENCODER}layer_{i}/.*", encoder * layer_decay ** (layers - 1 - i))
            for i in (top or range(layers))[:-1]
        )
        # In one rule, as a model that takes the mean of the states has no pooling.
        last = (rf"{ENCODER}(layer_{layers - 1}|pool)/.*", encoder)
        below = (ENCODER + r".*", encoder * layer_decay**layers)
        return (*by_layer, last, below if what == "none" else frozen, rest)
    if what == "none":
        return ((ENCODER + r".*", encoder), rest)
    if what == "embeddings":
        return ((ENCODER + r"embeddings/.*", None), (ENCODER + r".*", encoder), rest)
    if what in ("lora", "bias"):
        trained = r".*/lora_[ab]" if what == "lora" else r".*/bias"
    elif top is not None:
        trained = rf"(layer_({'|'.join(map(str, top))})|pool)/.*"
    else:
        raise ValueError(f"freeze: {what!r} is invalid for layers={layers}")
    return ((ENCODER + trained, encoder), frozen, rest)
