"""Writes the page of all errors that a user can correct, from the source of recjax.

    python -m experiments.errors > recjax/ERRORS.md

A message has the form "where: what is wrong; how to correct it". The page has a row for
each place in the code that makes one, with `<...>` for what is filled in.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from experiments.tabling.table import markdown_line

PACKAGE = Path(__file__).parent.parent / "recjax"
HEAD = """\
# Errors

All errors that a user can correct, by the file of `recjax` that reports them. Each is
one line with exit code 2, "where: what is wrong; how to correct it"; `<...>` is
what is filled in. Bad rows of data have further lines, one for each of the first ten.
This page is made by `python -m experiments.errors`.
"""


def main() -> None:
    """Prints the page."""
    print(page(), end="")


def page() -> str:
    """Returns the page."""
    parts = [HEAD]
    for path in sorted(PACKAGE.rglob("*.py")):
        if messages := list(find_messages(path)):
            name = path.relative_to(PACKAGE)
            lines = [["where", "what is wrong", "how to correct it"], ["---"] * 3]
            lines += map(split_message, messages)
            table = "\n".join(map(markdown_line, lines))
            parts.append(f"## {name}\n\n{table}\n")
    return "\n".join(parts)


def find_messages(path: Path) -> Iterator[str]:
    """Yields the messages of the user errors that a file makes, in its order."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: call.lineno):
        if (
            isinstance(call.func, ast.Name)
            and call.func.id == "UserError"
            and call.args
        ):
            yield render(call.args[0])


def render(node: ast.expr) -> str:
    """Returns a message with `<...>` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(render, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"<{ast.unparse(node.value)}>"
    return f"<{ast.unparse(node)}>"


def split_message(message: str) -> list[str]:
    """Splits a message into where, what is wrong, and how to correct it."""
    where, colon, rest = message.partition(": ")
    where, rest = (where, rest) if colon else ("", message)
    what, _, remedy = rest.partition("; ")
    return [part.replace("<", r"\<") for part in (where, what, remedy)]


if __name__ == "__main__":
    main()
