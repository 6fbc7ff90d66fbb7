"""Flat views of configs, and descriptions of the changes between two of them."""

import json
import re
from collections.abc import Mapping
from typing import Any

# Where data and weights lie, and what is reported, do not decide what a run computes:
# the bytes of data and weights do.
PLACES = ("data.source", "data.user_key", "text.encoder", "train.init_from")
REPORT = "report."
DIGEST = re.compile("[0-9a-f]{64}")
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
    old, new = flatten(before), flatten(now)
    pairs = {k: (old.get(k, _ABSENT), new.get(k, _ABSENT)) for k in old | new}
    changes = [
        f"{key}: {_short(a)} {names[0]}, {_short(b)} {names[1]}"
        for key, (a, b) in pairs.items()
        if a != b
    ]
    shown = changes[:limit]
    if len(changes) > len(shown):
        shown.append(f"{len(changes) - len(shown)} more")
    return "; ".join(shown)


def without_places(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a flat config that decide what a run computes."""
    return {
        key: value
        for key, value in flat.items()
        if key not in PLACES and not key.startswith(REPORT)
    }


def flat_config(config: Any) -> dict[str, Any]:
    """Flattens a config to `{"item_tower.width": 64, ...}`, with JSON values."""
    return flatten(json.loads(config.to_json()))


def _short(value: Any) -> Any:
    """Cuts a digest to the digits that tell it apart."""
    is_digest = isinstance(value, str) and DIGEST.fullmatch(value)
    return value[:12] if is_digest else value


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries and lists of dictionaries; see `flat_config`."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            for i, part in enumerate(value):
                flat |= flatten(part, f"{prefix}{key}[{i}].")
        else:
            flat[prefix + key] = value
    return flat
