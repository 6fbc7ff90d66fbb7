"""Prints the declared keys, for `--help_config`."""

import textwrap

from recjax.common.errors import UserError
from recjax.config.choices import allowed_names
from recjax.config.keys import PHASE, SECTIONS
from recjax.config.load import check_key, find_key
from recjax.config.schema import Key


def describe_keys(section: str = "") -> str:
    """Describes every key, those of a section, or one, as in "train.batch_size".

    Raises:
      UserError: there is no such section or key.
    """
    if "." in section:
        check_key(section)
        key = find_key(section)
        assert key is not None
        return _describe_key(section, key)
    if section not in SECTIONS:
        names = ", ".join(name for name in SECTIONS if name)
        raise UserError(f"--help_config: no section {section!r}; there are {names}")
    sections = {name: SECTIONS[name] for name in ([section] if section else SECTIONS)}
    if section in ("", "train"):
        sections["train.phases[i]"] = PHASE
    return "\n\n".join(
        "\n".join(_describe_key(f"{name}.{key}".lstrip("."), keys[key]) for key in keys)
        for name, keys in sections.items()
    )


def _describe_key(name: str, key: Key) -> str:
    allowed = ", ".join(allowed_names(key.choices))
    limits = f"choices: {allowed}" if allowed else key.bounds()
    facts = ", ".join(fact for fact in (key.unit, limits) if fact)
    doc = f"{key.doc} [{facts}]" if facts else key.doc
    body = textwrap.fill(
        doc, 88, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )
    return f"{name} = {key.default!r}\n{body}"
