"""Text that comes from data, made safe for consoles, log files and Markdown."""

import re

# Printed as they are although Unicode calls them format characters: they join letters
# of Indic and Persian words, and parts of emoji.
JOINERS = "\u200c\u200d"
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~&$])")


def visible(text: str) -> str:
    """Returns a text in one line, with control characters as visible escapes.

    A terminal would obey escape sequences, and characters that change the direction of
    writing would hide what a name really is.
    """
    if text.isprintable():
        return text
    return "".join(_visible_character(character) for character in text)


def visible_lines(text: str) -> str:
    """Returns a text with its line breaks, each line made `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def shorten(text: str, width: int) -> str:
    """Cuts a text to at most `width` characters; the last one is then an ellipsis."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "\u2026"


def escape_markdown(text: str) -> str:
    """Escapes what Markdown or HTML would interpret, for a line of a page."""
    return MARKDOWN.sub(r"\\\1", visible(text))


def _visible_character(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    if character.isspace() and character not in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85":
        return " "  # such as a no-break space
    return character.encode("unicode_escape").decode("ascii")
