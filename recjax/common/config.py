"""Flat views of configs, and descriptions of the changes between two of them."""

import json
from collections.abc import Mapping
from typing import Any

_ABSENT = "nothing"  # shown for a key that only the other mapping has


def describe_changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    names: tuple[str, str] = ("before", "now"),
    limit: int | None = 3,
) -> str:
    """Describes what differs: `"train.lr: 0.1 before, 0.2 now; 4 more"`.

    The two are configs, protocols or other mappings of JSON values. `names` follow
    their values; nested keys are joined by dots. At most `limit` changes are shown, or
    all if it is None. The description is empty only if nothing differs.
    """
    old, new = _flat(before), _flat(now)
    pairs = {k: (old.get(k, _ABSENT), new.get(k, _ABSENT)) for k in old | new}
    changes = [
        f"{key}: {a} {names[0]}, {b} {names[1]}"
        for key, (a, b) in pairs.items()
        if a != b
    ]
    shown = changes[:limit]
    if len(changes) > len(shown):
        shown.append(f"{len(changes) - len(shown)} more")
    return "; ".join(shown)


def compact_config(config: Any) -> str:
    """Formats a config for printing, with one line for each section."""
    lines = []
    for section, values in config.items():
        text = values.to_json() if hasattr(values, "to_json") else json.dumps(values)
        lines.append(f"  {section}: {text}")
    return "\n".join(lines)


def flat_config(config: Any) -> dict[str, Any]:
    """Flattens a config to `{"item_tower.width": 64, ...}`, with JSON values."""
    return _flat(json.loads(config.to_json()))


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            for i, part in enumerate(value):
                flat |= _flat(part, f"{prefix}{key}[{i}].")
        else:
            flat[prefix + key] = value
    return flat
