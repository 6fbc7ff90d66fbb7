"""The declaration of a config key: default, meaning, unit, bounds and choices."""

from dataclasses import dataclass
from typing import Any

MAX_COUNT = 10_000_000  # more is a typing error, or needs more memory than there is


@dataclass(frozen=True)
class Key:
    """Declares one key of the config.

    Attributes:
      default: value in `get_config()`; its type is the type of the key.
      doc: meaning, as one or more sentences.
      unit: unit of a number, as in "users" or "seconds".
      below: upper bound that is not itself allowed; `at_most` is one that is.
      choices: allowed values, or the name of a registry in `recjax.config.choices`.
      optional: whether "" is allowed besides the choices.
      infinite: whether infinity is allowed, as for no limit.
    """

    # Bounds and choices of a key whose default is a tuple hold for each of its items.
    default: Any
    doc: str
    unit: str = ""
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] | str = ()
    optional: bool = False
    infinite: bool = False

    def bounds(self) -> str:
        """Describes the bounds, as in "at least 0 and below 1"; "" without any."""
        limits = {
            "at least": self.at_least,
            "below": self.below,
            "at most": self.at_most,
        }
        return " and ".join(
            f"{how} {x:g}" if abs(x) < 1e6 else f"{how} {x:,.0f}"
            for how, x in limits.items()
            if x is not None
        )

    def within_bounds(self, value: Any) -> bool:
        """Returns whether a number respects the bounds; NaN does not."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )


def count(
    default: Any,
    unit: str,
    doc: str,
    *,
    at_least: int | None = None,
    at_most: int = MAX_COUNT,
) -> Key:
    """Declares a number of things: at least 1 by default, or 0 if 0 is the default."""
    least = int(default != 0) if at_least is None else at_least
    return Key(default, doc, unit, at_least=least, at_most=at_most)


def fraction(default: float, doc: str, *, below: float | None = None) -> Key:
    """Declares a number from 0 to 1, or from 0 to just under `below`."""
    at_most = 1 if below is None else None
    return Key(default, doc, at_least=0, below=below, at_most=at_most)


def choice(default: Any, choices: tuple[str, ...] | str, doc: str) -> Key:
    """Declares a name, or several names, out of those listed or registered."""
    return Key(default, doc, choices=choices)
