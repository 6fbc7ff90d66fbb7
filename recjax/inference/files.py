"""The files of a saved model: written complete or not at all, and verified.

| file | content |
|---|---|
| `config.json` | the config of the run, and what the other files hold |
| `model.safetensors` | all parameters, by path |
| `items.parquet` | the catalogue: ids, titles, texts, states |
| `item_vectors.safetensors` | vectors and biases of the items, fitted baselines |
| `encoder/` | config and tokenizer of the text encoder |
| `histories.parquet` | the items of every user, if `report.keep_histories` |
| `golden.json` | histories with the lists that they must give |
| `README.md` | the model card |
| `manifest.json` | SHA-256 of every file |
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import polars as pl
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from recjax.baselines.saved import baseline_state, restore_baseline
from recjax.catalogue.whitening import Whitening
from recjax.common.errors import UserError
from recjax.common.files import (
    file_sha256,
    read_json,
    save_tensors,
    user_path,
    writes_to,
)
from recjax.common.hub import download_snapshot, is_hub_id
from recjax.data.batching.types import Scorer
from recjax.inference.checks import (
    LIBRARY,
    check_config,
    check_finite,
    check_histories,
    check_items,
    check_vectors,
)
from recjax.inference.frames import read_parquet
from recjax.inference.parts import COPY, ItemVectors, ModelParts
from recjax.inference.versions import MANIFEST, restore_link
from recjax.models.encoders.directory import SETTINGS
from recjax.runtime.locks import MARK, directory_lock

FORMAT = 1  # raised when older versions could not read the files
MODEL = "model"  # name of the directory in a run directory
CONFIG, GOLDEN, CARD = "config.json", "golden.json", "README.md"
PARAMS, VECTORS = "model.safetensors", "item_vectors.safetensors"
ITEMS, HISTORIES = "items.parquet", "histories.parquet"
ENCODER = "encoder"
NEW, OLD = "new", "old"  # models in a temporary directory
TEMPORARY = ".recjax-model."  # and a name: the directory where that model is written


def save_parts(
    parts: ModelParts, folder: Path, golden: list[dict[str, Any]], card: str
) -> None:
    """Writes a model directory; an older one in its place is replaced when complete.

    Args:
      parts: the model.
      folder: the directory.
      golden: histories and lists, see `golden`.
      card: the text of the model card.

    Raises:
      UserError: the directory cannot be written, or has other files than a model.
    """
    folder = Path(os.path.abspath(folder))  # `.` has no name
    check_target(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(folder) as own:
            new = own / NEW
            new.mkdir()  # with the permissions of any new directory
            _write(parts, new, golden, card)
            _replace(new, folder, own / OLD)
    except OSError as e:
        raise _unwritable(folder, e) from None


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Yields a locked directory next to a model's, in which a new model is written.

    What a program that was killed has left there is deleted. If it was killed while it
    replaced the old model, that one is moved back to its place.

    Raises:
      UserError: another process uses the directory, or it has files of the user.
      OSError: it cannot be written.
    """
    own = folder.with_name(TEMPORARY + folder.name)
    own.mkdir(exist_ok=True)
    new, old = own / NEW, own / OLD
    with directory_lock(own, "model", "model"):
        shutil.rmtree(new, ignore_errors=True)
        if old.exists():
            if is_model(folder):
                shutil.rmtree(old)
            else:
                os.replace(old, folder)
        try:
            yield own
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if not old.exists():  # it does after a failure that could not be undone
                (own / MARK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    own.rmdir()


def check_target(folder: Path) -> None:
    """Checks that a model can be written to a directory, and nothing else is lost.

    Raises:
      UserError: it is a link or a file, or has other files than a model.
    """
    try:
        if folder.is_symlink():
            raise UserError(
                f"{folder}: is a link to {os.readlink(folder)}, and a model is not "
                "written through a link; name another directory"
            )
        if not folder.exists() or is_model(folder):
            return
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(
                f"{folder}: exists and has other files than a model of recjax; name "
                "another directory"
            )
    except OSError as e:
        raise _unwritable(folder, e) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot be written ({error.strerror or error})")


def _write(
    parts: ModelParts, folder: Path, golden: list[dict[str, Any]], card: str
) -> None:
    vectors, values = _arrays(parts)
    params = {path: np.asarray(x) for path, x in parts.params.items()}
    for name, tensors in {PARAMS: params, VECTORS: vectors}.items():
        with writes_to(folder / name):
            save_tensors(tensors, folder / name)
    with writes_to(folder / ITEMS):
        parts.items.write_parquet(folder / ITEMS)
    if parts.histories is not None:
        with writes_to(folder / HISTORIES):
            parts.histories.write_parquet(folder / HISTORIES)
    if parts.encoder is not None:
        (folder / ENCODER).mkdir()
        for name in SETTINGS:
            if (parts.encoder / name).is_file():
                shutil.copyfile(parts.encoder / name, folder / ENCODER / name)
    content = {
        "format": FORMAT,
        "library_name": LIBRARY,
        "num_items": parts.num_items,
        "fusion": values,
        "about": parts.about,
        "run": json.loads(parts.config.to_json()),
    }
    texts = {
        CONFIG: json.dumps(content, indent=2, allow_nan=False),
        GOLDEN: json.dumps(golden, allow_nan=False),
        CARD: card,
    }
    for name, text in texts.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    files = sorted(x for x in folder.rglob("*") if x.is_file())
    manifest = {x.relative_to(folder).as_posix(): file_sha256(x) for x in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in [*files, folder / MANIFEST]:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _replace(new: Path, folder: Path, old: Path) -> None:
    """Moves a complete model into its place, and the model in that place to `old`."""
    check_target(folder)  # writing took a while
    if not folder.exists():
        os.replace(new, folder)
        return
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except BaseException:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _arrays(parts: ModelParts) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of `VECTORS`, and the values of the fused baselines."""
    arrays = {"candidates": parts.vectors.candidates_NxD, "bias": parts.vectors.bias_N}
    if not np.array_equal(parts.vectors.history_NxD, parts.vectors.candidates_NxD):
        arrays["history"] = parts.vectors.history_NxD
    if parts.whitening is not None:
        arrays |= {f"whitening/{k}": v for k, v in parts.whitening._asdict().items()}
    values = {}
    for name, baseline in parts.fusion.items():
        own, values[name] = baseline_state(baseline)
        arrays |= {f"fusion/{name}/{key}": array for key, array in own.items()}
    return {name: np.ascontiguousarray(x) for name, x in arrays.items()}, values


def load_parts(folder: Path) -> tuple[ModelParts, list[dict[str, Any]]]:
    """Reads and verifies a model directory; returns the model and its golden lists.

    Raises:
      UserError: a file is missing, damaged, or does not fit the others.
    """
    check_files(folder)
    path = folder / CONFIG
    content = read_json(path)
    check_config(content, path, FORMAT)
    try:
        arrays, params = load_file(folder / VECTORS), load_file(folder / PARAMS)
        items = read_parquet(folder / ITEMS)
        histories = None
        if (folder / HISTORIES).is_file():
            histories = read_parquet(folder / HISTORIES)
        fusion: dict[str, Scorer] = {
            name: restore_baseline(name, _below(arrays, f"fusion/{name}/"), values)
            for name, values in content["fusion"].items()
        }
        candidates_NxD = arrays["candidates"]
        history_NxD = arrays.get("history", candidates_NxD)
        parts = ModelParts(
            ConfigDict(content["run"]).lock(),
            params,
            items,
            ItemVectors(history_NxD, candidates_NxD, arrays["bias"]),
            folder / ENCODER if (folder / ENCODER).is_dir() else None,
            Whitening(**own) if (own := _below(arrays, "whitening/")) else None,
            fusion,
            histories,
            content["about"],
        )
        check_items(items, content.get("num_items"), folder / ITEMS)
        check_vectors(parts, folder / VECTORS)
        check_finite(parts, folder)
        if histories is not None:
            check_histories(histories, parts.num_items, folder / HISTORIES)
        if "text" in parts.config.item_tower.sources and parts.encoder is None:
            raise UserError(f"{folder / ENCODER}: is missing; {COPY}")
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as e:
        raise UserError(f"{folder}: its files do not fit each other ({e})") from None
    except (pl.exceptions.PolarsError, OSError) as e:
        raise UserError(f"{folder}: unreadable ({e})") from None
    return parts, read_json(folder / GOLDEN, shape=list)


def is_model(folder: Path) -> bool:
    """Returns whether a directory has a model of recjax and nothing else."""
    try:
        content, manifest = read_json(folder / CONFIG), read_json(folder / MANIFEST)
    except UserError:
        return False
    if content.get("library_name") != LIBRARY:
        return False
    files = {*manifest, MANIFEST}
    folders = {str(x) for name in files for x in PurePosixPath(name).parents}
    return all(
        (name in folders if is_folder else name in files)
        for name, is_folder in _entries(folder)
    )


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yields all names below a directory, and whether each is a directory.

    A link to a directory is not one.
    """
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(path, name)
            is_folder = entry.is_dir() and not entry.is_symlink()
            yield entry.relative_to(folder).as_posix(), is_folder


def find_manifest(folder: Path) -> Path:
    """Returns the path of a model's manifest.

    Raises:
      UserError: there is none.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder}: is not a model of recjax: it has no {MANIFEST}. A finished run "
            f"has its model in {MODEL}/"
        )
    return path


def model_version(folder: Path) -> str:
    """Returns 12 hexadecimal digits that identify the files of a model.

    Raises:
      UserError: the directory has no manifest.
    """
    return file_sha256(find_manifest(folder))[:12]


def locate_model(name: str) -> Path:
    """Returns the directory of a model; makes its link again if that is missing.

    Args:
      name: a run directory, a model directory, or `owner/name[@revision]` on the Hub.

    Raises:
      UserError: there is no such model, or its link cannot be made again.
    """
    path = user_path(name, "model")
    restore_link(path)
    if os.path.isdir(path):  # False where `path.is_dir` raises: for a long name
        restore_link(path / MODEL)
        if (path / MODEL).is_symlink() and not (path / MODEL).exists():
            raise UserError(
                f"{path / MODEL}: is a link to {os.readlink(path / MODEL)}, which is "
                "missing; make it a link to another version of the model"
            )
        if (path / MODEL).is_dir():
            return path / MODEL
        if (path / CONFIG).is_file() and (path / "checkpoints").is_dir():
            if (path / "results.json").is_file():
                raise UserError(
                    f"{path}: this run was finished without {MODEL}/; train it again "
                    "with --config.report.save_model=True: the same command writes the "
                    "model from the checkpoints"
                )
            raise UserError(
                f"{path}: this run has no {MODEL}/ yet; it is written when the run is "
                "finished"
            )
        return path
    if not is_hub_id(name):
        raise UserError(f"{name}: no such directory")
    return download_snapshot(name)


def check_files(folder: Path) -> None:
    """Compares the files of a model directory with its manifest.

    Raises:
      UserError: there is no manifest, it does not name a file of the model, or a file
        is missing or has changed.
    """
    path = find_manifest(folder)
    manifest = read_json(path)
    for name, digest in manifest.items():
        file = folder / name
        if "\0" in name or not isinstance(digest, str):
            raise UserError(f"{path}: damaged; {COPY}")
        # The names alone count: files in the Hub's cache are links to other places.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path}: {name!r} is outside of the directory")
        if not file.is_file():
            raise UserError(f"{file}: is missing; {COPY}")
        if file_sha256(file) != digest:
            raise UserError(f"{file}: has changed since it was saved; {COPY}")
    optional = (HISTORIES, CARD, *(f"{ENCODER}/{name}" for name in SETTINGS))
    present = {name for name in optional if (folder / name).exists()}
    if missing := {CONFIG, PARAMS, VECTORS, ITEMS, GOLDEN, *present} - manifest.keys():
        raise UserError(f"{path}: does not name {min(missing)}; {COPY}")


def _below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
