"""The config: declaration of every key, defaults, validation and loading."""

from recjax.config.base import ENCODER, freeze, get_config, phase

__all__ = ["ENCODER", "freeze", "get_config", "phase"]
