"""Flat views of configs, and what differs between two of them."""

import json
from collections.abc import Mapping
from typing import Any


def changed_values(
    there: dict[str, Any], here: dict[str, Any]
) -> list[tuple[str, str]]:
    """Keys whose values differ, each with both values."""
    keys = [k for k in {**there, **here} if there.get(k) != here.get(k)]
    return [(k, f"{there.get(k)} there, {here.get(k)} here") for k in keys]


def describe_changes(there: dict[str, Any], here: dict[str, Any]) -> str:
    """The first three of `changes`, as words."""
    each = [f"{k}: {said}" for k, said in changed_values(there, here)]
    more = f" and {len(each) - 3} more" if len(each) > 3 else ""
    return "; ".join(each[:3]) + more


def compact_config(config: Any) -> str:
    """One line a section."""
    lines = []
    for section, values in config.items():
        text = values.to_json() if hasattr(values, "to_json") else json.dumps(values)
        lines.append(f"  {section}: {text}")
    return "\n".join(lines)


def flat_config(config: Any) -> dict[str, Any]:
    """`{"item_tower.width": 64, ...}`."""
    return _flat(json.loads(config.to_json()))


def config_changes(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: tuple[str, str] = ("there", "here"),
) -> str:
    """The keys in which two configs, or protocols, differ."""
    a, b = _flat(old), _flat(new)
    keys = [k for k in {**a, **b} if a.get(k) != b.get(k)]
    x, y = where
    shown = [f"{k}: {a.get(k)} {x}, {b.get(k)} {y}" for k in keys[:3]]
    return "; ".join(shown) + (f"; {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(nested: Mapping[str, Any], stem: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{stem}{key}.")
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            for i, part in enumerate(value):
                flat |= _flat(part, f"{stem}{key}[{i}].")
        else:
            flat[stem + key] = value
    return flat
