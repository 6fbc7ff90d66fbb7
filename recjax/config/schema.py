"""The declaration of a config key: default, meaning, unit, bounds and choices."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """Declares one key of the config.

    Bounds and choices of a key whose default is a tuple hold for each of its items.

    Attributes:
      default: value in `get_config()`; its type is the type of the key.
      doc: meaning, as one or more sentences.
      unit: of a number, as in "users" or "seconds".
      at_least: smallest value.
      below: upper bound that is not itself allowed.
      at_most: largest value.
      choices: allowed values, or a function that returns them. The function is called
        when a config is validated, so that names registered until then are accepted,
        and a module that imports JAX is not imported before.
      optional: whether "" is allowed besides the choices.
    """

    default: Any
    doc: str
    unit: str = ""
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: Collection[str] | Callable[[], Collection[str]] = ()
    optional: bool = False

    def allowed(self) -> Collection[str]:
        """Returns the names to choose from; none where every value is allowed."""
        return self.choices() if callable(self.choices) else self.choices

    def bounds(self) -> str:
        """Describes the bounds, as in "at least 0 and below 1"; "" without any."""
        parts = (
            ("at least", self.at_least),
            ("below", self.below),
            ("at most", self.at_most),
        )
        return " and ".join(f"{how} {x:g}" for how, x in parts if x is not None)

    def within_bounds(self, value: Any) -> bool:
        """Whether a number respects the bounds; NaN does not."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )
