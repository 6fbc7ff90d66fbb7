"""Shared command-line handling of the programs that start runs."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recjax.common.errors import STOPPED, UserError
from recjax.common.files import user_path
from recjax.reporting.bars import Lines
from recjax.runtime.locks import check_directory, directory_lock

EXPERIMENT = "sweep"  # the kind of an output directory, see `check_directory`
POLL = 0.2  # seconds between two checks of the running processes


class RenamedFlag(argparse.Action):
    """Rejects a flag that has a new name, which is given as `const`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Ends the program with an error that names the new flag."""
        parser.error(f"{option_string} is now called {self.const}")


def add_variants(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds `--variants`, and an error for the name that it had before."""
    parser.add_argument("--variants", nargs="+", metavar="VARIANT", help=text)
    parser.add_argument(
        "--points",
        nargs="*",
        action=RenamedFlag,
        const="--variants",
        help=argparse.SUPPRESS,
    )


def split_arguments(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Splits a command line at `--`: the program's arguments, and those of the runs."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    return given[:split], given[split + 1 :]


def path_argument(text: str) -> Path:
    """Resolves the path of an option; argparse shows the error."""
    try:
        return user_path(text, "path")
    except UserError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


@contextlib.contextmanager
def session(out: Path, *, dry: bool = False) -> Iterator[None]:
    """Locks the output directory, and turns errors into one line and an exit code.

    The exit code is 2 after a `UserError` or `OSError`, and `STOPPED` after SIGINT or
    SIGTERM.

    Args:
      out: directory of the output, created if it does not exist.
      dry: whether nothing is written, so that no lock is needed.
    """
    # SIGTERM takes the path of Ctrl-C, so that running jobs can save.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if dry:
            check_directory(out, EXPERIMENT, "--out")
            yield
            return
        with directory_lock(out, EXPERIMENT, "--out"):
            yield
    except UserError as e:
        print(f"error: {e}", *e.details, sep="\n  ", file=sys.stderr)
        sys.exit(2)
    except OSError as e:  # a full disk, a directory without write permission
        print(f"error: {e.filename or out}: {e.strerror or e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped: the same command resumes", file=sys.stderr)
        sys.exit(STOPPED)
    finally:
        signal.signal(signal.SIGTERM, before)


def make_bar(done: int, total: int, unit: str) -> tqdm:
    """Returns a progress bar on standard output; lines outside a terminal."""
    is_terminal = sys.stdout.isatty()
    return tqdm(
        total=total,
        initial=done,
        bar_format=f"{{n_fmt}}/{{total_fmt}} {unit}{{postfix}}",
        mininterval=0.5 if is_terminal else 30,
        miniters=0,  # the list of running jobs changes while the count does not
        file=sys.stdout if is_terminal else Lines(sys.stdout),
    )


def check_same_arguments(
    before: Mapping[str, Any], now: Mapping[str, Any], out: Path
) -> None:
    """Raises UserError if a directory was started with other arguments."""
    for key, value in now.items():
        if key in before and before[key] != value:
            raise UserError(
                f"--out {out}: was started with {key} {before[key]!r}, not {value!r}; "
                "choose another --out"
            )
