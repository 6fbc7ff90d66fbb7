"""How a run ends but for its results."""

import ast
import contextlib
import re
import textwrap

STOPPED = 75  # exit code: ended by a signal, saved, to be resumed
PROCESS_LOST = 76  # exit code: another process of the run is gone


class UserError(Exception):
    """Says in one line what is wrong, where, and how to mend it.

    `recjax.main` prints the message and exits with code 2. Mistakes in the code
    itself keep their own exceptions and their tracebacks.
    """


class Stopped(BaseException):
    """A signal asked the run to end.

    Not an `Exception`, so that nothing takes it for a failure of its own.

    Attributes:
      saved: whether a save has all that there is to save.
    """

    def __init__(self, *, saved: bool):
        super().__init__()
        self.saved = saved


def explain(e: BaseException) -> list[str]:
    """What a config file, or the reader of its flags, raised: lines without noise."""
    said = str(e)
    with contextlib.suppress(ValueError, SyntaxError):
        said = str(ast.literal_eval(said))  # a KeyError quotes what it says
    if "Traceback (most recent call last)" in said:  # of the config file's own code
        places = re.findall(r'File "([^"]+)", line (\d+), in get_config', said)
        where = "{}, line {}: ".format(*places[-1]) if places else ""
        error = re.split(r"^(?=\w+(?:Error|Exception): )", said, flags=re.MULTILINE)[-1]
        return [where + textwrap.shorten(error, 200, placeholder=" ...")]
    said = re.sub(r" Other fields present: .*\n", "\n", said, flags=re.DOTALL)
    said = re.sub(
        r"^'(\w+)'\s+Did you mean (\"\w+\").*", r"no key '\1'; did you mean \2?", said
    )
    if isinstance(e, KeyError | AttributeError):
        said = re.sub(r"^'?(\w+)'?$", r"no key '\1'", said)
    return [line.strip() for line in said.splitlines() if line.strip()] or [repr(e)]
