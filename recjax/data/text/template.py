"""Builds the texts of items from a template like "{name}. {brand}"."""

import string
from collections.abc import Mapping, Sequence

from recjax.common.errors import UserError

OPENING, CLOSING = "([{<", ")]}>"
# Text, and the column whose value follows it; None at the end of the template.
Part = tuple[str, str | None]


def parse_template(
    template: str,
    columns: Sequence[str],
    key: str,
    unreadable: Mapping[str, str] | None = None,
) -> list[Part]:
    """Splits a template into its text and its columns.

    Args:
      template: text with `{column}` fields.
      columns: names of the columns that there are.
      unreadable: types of the columns that cannot be used, by name.
      key: config key of the template, for errors.

    Raises:
      UserError: the template is malformed, a column does not exist, or a field has more
        than a name: `{title.__class__}` would reach into objects.
    """
    parts: list[Part] = []
    before = ""  # an escaped brace ends a part without a field
    try:
        for text, field, spec, conversion in string.Formatter().parse(template):
            before += text
            if field is None:
                continue
            parts.append((before, field))
            before = ""
            if spec or conversion:
                problem = f"formats are not supported; write {{{field}}}"
                raise UserError(f"{key}: {template!r}: {problem}")
            if kind := (unreadable or {}).get(field):
                problem = f"column {field!r} is of type {kind}; save it as text"
                raise UserError(f"{key}: {template!r}: {problem}")
            if field not in columns:
                known = ", ".join(columns)
                problem = f"no column {field!r}; the item table has {known}"
                raise UserError(f"{key}: {template!r}: {problem}")
    except ValueError as e:
        raise UserError(f"{key}: {template!r}: {e}") from None
    return [*parts, (before, None)]


def fill_template(parts: Sequence[Part], row: Mapping[str, str]) -> str:
    """Fills a template with the values of an item.

    An empty field is left out, together with what separates it from the others: without
    a name, "{name}. {brand}" is the brand alone; without a year, "{name} ({year})" the
    name. Without any value the text is empty.
    """
    filled, literals, used = "", list[str](), False
    fields = [field for _, field in parts if field is not None]
    if fields and not any(row[field].strip() for field in fields):
        return ""
    for text, field in parts:
        literals.append(text)
        if field is not None and row[field].strip():
            filled += _between(literals) if used else _before(literals)
            filled += row[field]
            literals, used = [], True
    return filled + _between(literals)


def _before(literals: list[str]) -> str:
    """Returns the text before the first value, without what belongs to empty fields."""
    first, *others = literals
    for character in "".join(others):
        if character in CLOSING and first.endswith(tuple(OPENING)):
            first = first[:-1]
    last = others[-1] if others else ""
    return first + last[len(last.rstrip(OPENING)) :]


def _between(literals: list[str]) -> str:
    """Returns the text after a value: of several around empty fields, the last."""
    if not literals:
        return ""
    *others, last = literals
    # A bracket that was opened for an empty field is closed here.
    for character in "".join(others):
        if character in OPENING and last.startswith(tuple(CLOSING)):
            last = last[1:]
    return last
