"""What the programs that start runs have alike: their command line, and their end."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.plan import claim
from recjax.errors import STOPPED, UserError


def split_arguments(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The program's own arguments, and what follows `--`, for every run."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    return given[:split], given[split + 1 :]


@contextlib.contextmanager
def session(out: Path) -> Iterator[None]:
    """Keeps others out of the directory; ends with one line where it cannot go on.

    Exit code 2 after a `UserError`, `STOPPED` after SIGINT or SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with claim(out):
            yield
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped: the same command resumes", file=sys.stderr)
        sys.exit(STOPPED)
    finally:
        signal.signal(signal.SIGTERM, before)
