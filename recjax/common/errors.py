"""Exceptions and exit codes that end a run early."""

import ast
import contextlib
import re
import textwrap
import traceback
from collections.abc import Sequence

from recjax.common.text import visible

STOPPED = 75  # exit code: stopped by a signal and saved, so it can be resumed
USER_FUNCTIONS = ("get_config", "describe")  # of config files, and of data sets
PROCESS_LOST = 76  # exit code: another process of the run is gone


class UserError(Exception):
    """A mistake that the user can fix: what is wrong, where, and how to fix it.

    `recjax.main` prints the message, "where: what happened; how to fix it", in one line
    and exits with code 2. Mistakes in the code itself keep their tracebacks.

    Attributes:
      details: further lines, which are printed below the message.
      key: the config key, flag or file that the error is about; by default the part of
        the message before the first ": ", or None.
    """

    def __init__(
        self, message: str, key: str | None = None, *, details: Sequence[str] = ()
    ):
        message = visible(message)  # it may quote text from data
        super().__init__(message)
        self.details = [visible(line) for line in details]
        before, colon, _ = message.partition(": ")
        self.key = key or (before if colon else None)


class Stopped(BaseException):
    """Ends a run after a signal; `saved` is whether everything is saved."""

    # Not an `Exception`, so that handlers of failures do not catch it.
    def __init__(self, *, saved: bool):
        super().__init__()
        self.saved = saved


def explain(error: BaseException) -> list[str]:
    """Explains an exception of a config file or of its flags in short lines."""
    message = str(error)
    with contextlib.suppress(ValueError, SyntaxError):
        message = str(ast.literal_eval(message))  # a KeyError quotes its message
    if "Traceback (most recent call last)" in message:  # from code of the config file
        frame = rf'File "([^"]+)", line (\d+), in (?:{"|".join(USER_FUNCTIONS)})\b'
        places = re.findall(frame, message)
        where = "{}, line {}: ".format(*places[-1]) if places else ""
        exception = r"^(?=\w+(?:Error|Exception): )"
        last = re.split(exception, message, flags=re.MULTILINE)[-1]
        return [where + textwrap.shorten(last, 200, placeholder=" ...")]
    # Shortens the messages of ml_collections, which list all keys of a section.
    message = re.sub(r" Other fields present: .*\n", "\n", message, flags=re.DOTALL)
    unknown = r"""^(?:'|Key ")(\w+)(?:'|" does not exist and cannot be added[^.]*\.)"""
    hint = rf"""{unknown}\s+Did you mean ("\w+").*"""
    message = re.sub(hint, r"no key '\1'; did you mean \2?", message)
    if isinstance(error, KeyError | AttributeError):
        message = re.sub(r"^'?(\w+)'?$", r"no key '\1'", message)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first, *others = lines or [repr(error)]
    return [_place(error) + first, *others]


def _place(error: BaseException) -> str:
    """Returns where in `USER_FUNCTIONS` an exception was raised, with a colon."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if frame.name in USER_FUNCTIONS]
    return f"{places[-1].filename}, line {places[-1].lineno}: " if places else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
