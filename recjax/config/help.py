"""Prints the declared keys, for `--help_config`."""

import textwrap
from collections.abc import Mapping

from recjax.common.errors import UserError
from recjax.config.keys import PHASE, SECTIONS
from recjax.config.schema import Key

PHASES = "train.phases[i]"


def describe_keys(section: str = "") -> str:
    """Describes every key, or those of one section.

    Raises:
      UserError: no such section.
    """
    if not section:
        return "\n\n".join(map(_describe_section, [*SECTIONS, PHASES]))
    if section not in SECTIONS:
        names = ", ".join(name for name in SECTIONS if name)
        raise UserError(f"--help_config: no section {section!r}; there are {names}")
    more = [PHASES] if section == "train" else []
    return "\n\n".join(map(_describe_section, [section, *more]))


def _describe_section(section: str) -> str:
    keys: Mapping[str, Key] = PHASE if section == PHASES else SECTIONS[section]
    prefix = f"{section}." if section else ""
    return "\n".join(_describe_key(prefix + name, key) for name, key in keys.items())


def _describe_key(name: str, key: Key) -> str:
    allowed = ", ".join(key.allowed())
    limits = f"choices: {allowed}" if allowed else key.bounds()
    facts = ", ".join(fact for fact in (key.unit, limits) if fact)
    doc = f"{key.doc} [{facts}]" if facts else key.doc
    body = textwrap.fill(
        doc, 88, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )
    return f"{name} = {key.default!r}\n{body}"
