"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

TABLE = ("table.md", "table.csv", "plot.png")


@contextlib.contextmanager
def whole(*paths: Path) -> Iterator[list[Path]]:
    """Where to write; what is written takes the paths' places if all went well.

    Args:
      *paths: files that are there, of a former time, or not.
    """
    parts = [path.with_name(f".part.{path.name}") for path in paths]
    try:
        yield parts
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
