"""Shared parts of all commands: options, errors in one line, tables in and out."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from recjax.common.errors import UserError
from recjax.common.files import atomic_files, user_path, writes_to
from recjax.common.text import visible
from recjax.runtime.console import (
    INTERRUPTED,
    exit_on_interrupt,
    exit_soon,
    keep_console,
)
from recjax.runtime.host_memory import keep_memory

FORMATS = {".csv": "csv", ".parquet": "parquet", ".inter": "atomic", ".item": "atomic"}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit code 2.

    An option may be given once; of several values all but the last would be ignored.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses repeated options, and parses the others as usual."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        options = [x.partition("=")[0] for x in given[:end] if x.startswith("--")]
        for option, number in Counter(options).items():
            if number > 1:
                self.error(f"{option}: is given {number} times; give it once")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints a mistake in the options, and exits."""
        print(f"error: {visible(message)}; see --help", file=sys.stderr)
        sys.exit(2)


def make_parser(name: str, description: str | None) -> Parser:
    """Returns a parser with the option that every command of a model has.

    Args:
      name: the command, as the console script `recjax` has it.
      description: the text above the options.
    """
    parser = Parser(
        prog=f"recjax {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model",  # required, but a misspelt option is named first
        help="run directory, model directory, or owner/name on the Hugging Face Hub",
    )
    return parser


def run_command(
    parser: Parser, command: Callable[[Any], None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parses the options and runs a command; a user's mistake is one line, code 2."""
    keep_console(is_result=True)
    options = parser.parse_args(argv)
    if options.model is None:
        parser.error("--model is required")
    keep_memory()
    try:
        with exit_on_interrupt():
            import recjax.inference.model  # noqa: F401 (imports JAX, which takes a second)
        _check_paths(options)
        command(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        exit_soon(INTERRUPTED)
    except UserError as e:
        _fail(str(e), e.details)
    except OSError as e:
        if not e.strerror:
            raise
        _fail(f"{e.filename or 'files'}: {e.strerror}")
    except MemoryError:
        _fail("memory: not enough for this command")
    exit_soon(0)


def read_frame(
    name: str,
    option: str,
    ids: Mapping[str, str],
    required: Sequence[str] = (),
    time: str = "",
) -> Any:
    """Reads a CSV, Parquet or atomic file; all columns are strings.

    Args:
      name: the path.
      option: the option that holds it, for errors.
      ids: columns of ids, and the names that they may have instead. Those that the file
        has are checked, and get the first name.
      required: those of `ids` that the file must have.
      time: column of times; if the file has it, it becomes seconds since 1970.

    Raises:
      UserError: there is no such file, it cannot be read, has another format, lacks a
        column, or has bad rows or none.
    """
    table = _read_table(user_path(name, option), option)
    path, columns = table.path, table.frame.columns
    found = {name if name in columns else other: name for name, other in ids.items()}
    for own, column in found.items():
        if own in columns:
            table.check_ids(own)
        elif column in required:
            expected = " or ".join(map(repr, dict.fromkeys((column, own))))
            raise UserError(
                f"{option}: {path}: no column {expected}; its first line has the "
                f"columns {', '.join(map(repr, columns))}"
            )
    seconds = None
    if time in table.frame.columns:
        table.check_times(time)
        seconds = table.frame[time]
    table.refuse_bad_rows()
    if not len(table):
        raise UserError(f"{option}: {path}: has no rows")
    texts = table.as_texts()
    if seconds is not None:
        texts = texts.with_columns(seconds)
    return texts.rename(found, strict=False)


def read_new_items(name: str, column: str) -> Any:
    """Reads the file of `--items`; `column` is that of the ids, see `read_frame`."""
    return read_frame(name, "--items", {column: column}, [column])


def _read_table(path: Path, option: str) -> Any:
    """Reads a file in the format that its name tells.

    Raises:
      UserError: there is no such file, it cannot be read, or has another format.
    """
    from recjax.data.ingest.formats import read_file

    suffixes = [suffix for suffix in path.suffixes if suffix in FORMATS]
    if not suffixes:
        known = ", ".join(FORMATS)
        raise UserError(f"{option}: {path}: the name ends in none of {known}")
    if not path.exists():
        raise UserError(f"{option}: {path}: no such file")
    return read_file(path, FORMATS[suffixes[-1]])


def check_output(
    name: str | None, suffixes: Sequence[str] = (".csv", ".parquet")
) -> Path | None:
    """Returns the path of `--out`, before anything is computed.

    The file of a symbolic link is written, and the link stays.

    Raises:
      UserError: it does not end in one of the suffixes, or cannot be written.
    """
    if name is None:
        return None
    path = user_path(name, "--out")
    if path.suffix not in suffixes:
        known = " or ".join(suffixes)
        raise UserError(f"--out: {path}: the name does not end in {known}")
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if target.suffix != path.suffix:  # which decides the format
            problem = f"the file of this link, {target}, does not end in {path.suffix}"
            raise UserError(f"--out: {path}: {problem}")
        path = target
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "not a regular file"
        raise UserError(f"--out: {path}: is {kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_frame(frame: Any, path: Path) -> None:
    """Writes a table as CSV or Parquet; it appears complete or not at all."""
    with writes_to(path), atomic_files(path) as (part,):
        if path.suffix == ".parquet":
            frame.write_parquet(part)
        else:
            frame.write_csv(part)


def _check_paths(options: Any) -> None:
    """Checks that `--out` is none of the files that are read.

    Raises:
      UserError: it is one of them, or lies in the model.
    """
    values = dict(vars(options))
    if not values.get("out"):
        return
    out = user_path(values.pop("out"), "--out").resolve()
    for name, value in values.items():
        # Other options hold texts and ids, which may be too long for a path.
        if not isinstance(value, str):
            continue
        expanded = os.path.expanduser(value)
        if not os.path.exists(expanded):
            continue
        path = Path(expanded).resolve()
        if name == "model" and path.is_dir() and out.is_relative_to(path):
            raise UserError(f"--out: {out}: lies in the model; choose another place")
        if path == out:
            raise UserError(f"--out: {out}: is the file of --{name}")


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
    exit_soon(2)
