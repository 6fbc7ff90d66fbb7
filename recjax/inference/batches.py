"""Lists for all users of a model, in parts that survive an interruption."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.baselines.saved import baseline_state
from recjax.common.errors import UserError
from recjax.common.files import (
    atomic_files,
    hash_arrays,
    read_json,
    sha256,
    write_text_atomically,
    writes_to,
)
from recjax.inference.frames import read_parquet
from recjax.inference.model import Model
from recjax.reporting.bars import make_bar

SETTINGS = "settings.json"
# Names of what is in the directory of parts: settings and lists, finished or not.
OWN_FILES = re.compile(r"(\.part\.)?(settings\.json|\d{12}\.parquet)")


def recommend_all(
    model: Model, out: Path, chunk: int, settings: dict[str, Any]
) -> None:
    """Writes the lists of all users to a CSV or Parquet file.

    Finished parts are kept in a directory next to the file until all are finished. The
    same call again makes only the missing ones; a call with another model or other
    settings starts again.

    Args:
      model: the model.
      out: the file.
      chunk: users of a part.
      settings: arguments of `Model.recommend`.

    Raises:
      UserError: the model has no histories, a file cannot be written, or the directory
        of the parts has other files.
    """
    model.ids.check_histories()
    folder = out.with_name(f".parts.{out.name}")
    described = {"settings": settings, "chunk": chunk, "model": _digest(model)}
    path = folder / SETTINGS
    if _read_settings(folder) != described:
        _delete_parts(folder)
        folder.mkdir()
        with writes_to(path):
            write_text_atomically(path, json.dumps(described, sort_keys=True))
    lists = pl.scan_parquet(_make_parts(model, folder, chunk, settings), glob=False)
    with writes_to(out), atomic_files(out) as (unfinished,):
        if out.suffix == ".parquet":
            lists.sink_parquet(unfinished)
        else:
            lists.sink_csv(unfinished)
    _delete_parts(folder)
    print(f"lists of {len(model.users):,} users: {out}")


def _make_parts(
    model: Model, folder: Path, chunk: int, settings: dict[str, Any]
) -> list[Path]:
    """Writes the parts that are not finished, and returns the paths of all."""
    users = model.users
    starts = range(0, len(users), chunk)
    parts = [folder / f"{start:012d}.parquet" for start in starts]
    chosen = [users[start : start + chunk] for start in starts]
    finished = [_is_complete(part) for part in parts]
    done = sum(len(x) for x, is_done in zip(chosen, finished, strict=True) if is_done)
    bar = make_bar(len(users), done, "recommending", "user", active=True)
    for names, part, is_done in zip(chosen, parts, finished, strict=True):
        if not is_done:
            found = model.recommend(users=names, **settings)
            with writes_to(part), atomic_files(part) as (unfinished,):
                found.write_parquet(unfinished)
            bar.update(len(names))
    bar.close()
    return parts


def _read_settings(folder: Path) -> dict[str, Any] | None:
    """Returns what the parts in a directory were made with; None without any.

    Raises:
      UserError: the directory has files that `recommend_all` does not write.
    """
    if not folder.is_dir():
        return None
    path, problem = folder / SETTINGS, f"{folder}: has files of something else"
    others = [x.name for x in folder.iterdir() if not OWN_FILES.fullmatch(x.name)]
    if others:
        raise UserError(f"{problem} ({min(others)}); move it away")
    if not path.exists():
        return None
    try:
        settings = read_json(path)
    except UserError:
        settings = {}
    if set(settings) != {"settings", "chunk", "model"}:
        raise UserError(f"{problem} ({SETTINGS}); move it away")
    return settings


def _delete_parts(folder: Path) -> None:
    """Deletes the parts and their directory, unless it has other files."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if OWN_FILES.fullmatch(path.name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_complete(part: Path) -> bool:
    """Returns whether a part is there, and readable to the end."""
    try:
        read_parquet(part)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False
    return True


def _digest(model: Model) -> str:
    """Identifies all of a model that decides its lists."""
    parts = model.parts
    tables = [x for x in (parts.items, parts.histories) if x is not None]
    arrays = {**parts.params, **vars(parts.vectors)}
    for name, baseline in parts.fusion.items():
        own, values = baseline_state(baseline)
        arrays |= {f"{name}/{key}": array for key, array in own.items()}
        arrays[name] = np.frombuffer(json.dumps(values).encode(), np.uint8)
    rows = [str(table.hash_rows().sum()) for table in tables]
    return sha256(f"{rows} {hash_arrays(sorted(arrays.items()))}")
