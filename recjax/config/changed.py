"""The keys of a config that differ from their defaults, for the console."""

import json
from typing import Any

from recjax.config import base


def changed_keys(config: Any) -> str:
    """Formats the keys that differ from their defaults, with a line for each section.

    Each phase has a line too, which names it.
    """
    now, default = (json.loads(x.to_json()) for x in (config, base.get_config()))
    phase_default = json.loads(base.phase("").to_json())
    lines = []
    for section, values in now.items():
        if not isinstance(values, dict):
            lines += _line("config", {section: values}, default)
            continue
        phases = values.pop("phases", ())
        lines += _line(section, values, default[section])
        for phase in phases:
            lines += _line(f"phase {phase['name']}", phase, phase_default, always=True)
    return "\n".join(lines)


def _line(
    name: str, values: dict[str, Any], default: dict[str, Any], *, always: bool = False
) -> list[str]:
    """Returns the line of a section; none if nothing differs, unless `always`."""
    changes = [
        f"{key}={json.dumps(value)}"
        for key, value in values.items()
        if key != "name" or not always
        if value != default.get(key)
    ]
    if not changes and not always:
        return []
    return [f"  {name}: {', '.join(changes) or 'all defaults'}"]
