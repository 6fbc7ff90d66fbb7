"""What the programs that start runs have alike: their command line, and their end."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recjax.common.errors import STOPPED, UserError
from recjax.runtime.locks import directory_lock

POLL = 0.2  # seconds between looks at what runs


def split_arguments(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The program's own arguments, and what follows `--`, for every run."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    return given[:split], given[split + 1 :]


@contextlib.contextmanager
def session(out: Path, *, dry: bool = False) -> Iterator[None]:
    """Keeps others out of the directory; ends with one line where it cannot go on.

    Exit code 2 after a `UserError` or `OSError`, `STOPPED` after SIGINT or SIGTERM.

    Args:
      out: made where it is not there.
      dry: whether nothing is written, and nobody kept out.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if dry:
            yield
            return
        out.mkdir(parents=True, exist_ok=True)
        with directory_lock(out, f"--out {out}: another program is in it"):
            yield
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except OSError as e:  # a full disk, a directory that may not be written
        print(f"error: {e.filename or out}: {e.strerror or e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped: the same command resumes", file=sys.stderr)
        sys.exit(STOPPED)
    finally:
        signal.signal(signal.SIGTERM, before)


def make_bar(done: int, total: int, unit: str) -> tqdm:
    """Progress on standard output, seldom where that is no terminal."""
    return tqdm(
        total=total,
        initial=done,
        bar_format=f"{{n_fmt}}/{{total_fmt}} {unit}{{postfix}}",
        mininterval=0.5 if sys.stdout.isatty() else 30,
        miniters=0,  # what runs changes though nothing is done
        file=sys.stdout,
    )


def check_same_arguments(
    before: Mapping[str, Any], now: Mapping[str, Any], out: Path
) -> None:
    """Raises UserError at what a directory was begun with and is not now."""
    for key, value in now.items():
        if key in before and before[key] != value:
            raise UserError(
                f"--out {out}: was begun with {key} {before[key]!r}, not {value!r}; "
                "choose another --out"
            )
