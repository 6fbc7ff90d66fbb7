"""Lists for all users of a model, in parts that survive an interruption."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from recjax.common.files import atomic_files, sha256, write_text_atomically
from recjax.inference.model import Model
from recjax.reporting.bars import make_bar

SETTINGS = "settings.json"


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
      UserError: the model has no histories.
    """
    if model.parts.histories is None:
        model.history("")  # says why
    users = model.users
    folder = out.with_name(f".parts.{out.name}")
    described = {"settings": settings, "chunk": chunk, "model": _digest(model)}
    wanted = json.dumps(described, sort_keys=True)
    path = folder / SETTINGS
    if not path.is_file() or path.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_text_atomically(path, wanted)
    starts = range(0, len(users), chunk)
    parts = [folder / f"{start:012d}.parquet" for start in starts]
    chosen = [users[start : start + chunk] for start in starts]
    finished = [part.exists() for part in parts]
    done = sum(len(x) for x, is_done in zip(chosen, finished, strict=True) if is_done)
    bar = make_bar(len(users), done, "recommending", "user", active=True)
    for names, part, is_done in zip(chosen, parts, finished, strict=True):
        if not is_done:
            found = model.recommend(users=names, **settings)
            with atomic_files(part) as (unfinished,):
                found.write_parquet(unfinished)
            bar.update(len(names))
    bar.close()
    lists = pl.scan_parquet(parts)
    with atomic_files(out) as (unfinished,):
        if out.suffix == ".parquet":
            lists.sink_parquet(unfinished)
        else:
            lists.sink_csv(unfinished)
    shutil.rmtree(folder)
    print(f"lists of {len(users):,} users: {out}")


def _digest(model: Model) -> str:
    """Identifies the catalogue, the histories and the vectors of a model."""
    histories = model.parts.histories
    hashes = [model.parts.items.hash_rows().sum()]
    if histories is not None:
        hashes.append(histories.hash_rows().sum())
    vectors = model.parts.vectors.candidates_NxD
    return sha256(f"{hashes} {sha256(vectors.tobytes())}")
