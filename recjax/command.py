"""What all commands share: options, errors in one line, tables in and out."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from recjax.common.errors import UserError
from recjax.common.files import atomic_files, user_path
from recjax.common.text import visible
from recjax.runtime.console import keep_console, leave

FORMATS = {".csv": "csv", ".parquet": "parquet", ".inter": "atomic", ".item": "atomic"}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints a mistake in the options, and exits."""
        print(f"error: {visible(message)}; see --help", file=sys.stderr)
        sys.exit(2)


def make_parser(description: str | None) -> Parser:
    """Returns a parser with the option that every command of a model has."""
    parser = Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model",
        required=True,
        help="run directory, model directory, or owner/name on the Hugging Face Hub",
    )
    return parser


def run_command(
    parser: Parser, command: Callable[[Any], None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parses the options and runs a command; a user's mistake is one line, code 2."""
    keep_console()
    options = parser.parse_args(argv)
    try:
        command(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        leave(130)
    except UserError as e:
        _fail(str(e), e.details)
    except OSError as e:
        if not e.strerror:
            raise
        _fail(f"{e.filename or 'files'}: {e.strerror}")
    except MemoryError:
        _fail("memory: not enough for this command")
    leave(0)


def read_frame(name: str, option: str) -> Any:
    """Reads a CSV, Parquet or atomic file; all columns are strings.

    Args:
      name: the path.
      option: the option that holds it, for errors.

    Raises:
      UserError: there is no such file, it cannot be read, or has another format.
    """
    from recjax.data.ingest.formats import read_table

    path = user_path(name, option)
    suffixes = [suffix for suffix in path.suffixes if suffix in FORMATS]
    if not suffixes:
        known = ", ".join(FORMATS)
        raise UserError(f"{option}: {path}: the name ends in none of {known}")
    if not path.exists():
        raise UserError(f"{option}: {path}: no such file")
    return read_table(path, FORMATS[suffixes[-1]]).as_texts()


def check_output(name: str | None) -> Path | None:
    """Returns the path of `--out`, before anything is computed.

    Raises:
      UserError: it ends neither in .csv nor in .parquet, or cannot be written.
    """
    if name is None:
        return None
    path = user_path(name, "--out")
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out: {path}: the name ends neither in .csv nor in .parquet")
    if path.is_dir():
        raise UserError(f"--out: {path}: is a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_frame(frame: Any, path: Path) -> None:
    """Writes a table as CSV or Parquet; it appears complete or not at all."""
    with atomic_files(path) as (part,):
        if path.suffix == ".parquet":
            frame.write_parquet(part)
        else:
            frame.write_csv(part)


def show_frame(frame: Any, label: str) -> None:
    """Prints lists for people: one heading per query, one line per item."""
    last = object()
    for row in frame.iter_rows(named=True):
        if row[label] != last:
            last = row[label]
            print(f"{label} {visible(str(last))}:")
        name = row.get("neighbour", row.get("item"))
        value = row.get("score", row.get("cosine"))
        title = visible(str(row["title"]))
        print(f"  {row['rank']:3}  {value:9.4f}  {visible(str(name))}  {title}")


def _fail(message: str, details: Sequence[str] = ()) -> NoReturn:
    print(f"error: {visible(message)}", file=sys.stderr)
    for line in details:
        print(f"  {line}", file=sys.stderr)
    leave(2)
