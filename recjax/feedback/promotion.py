"""Promotes a version of a model, and goes back to the one before.

`inference.versions` describes the files. If the program is killed, a usable model is
left, and the next promotion or rollback completes the change.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from recjax.common.errors import UserError
from recjax.common.files import writes_to
from recjax.inference.files import check_files, model_version
from recjax.inference.versions import (
    PART,
    all_versions,
    check_link,
    link_to_version,
    present_version,
    promoted_versions,
    restore_link,
    versions_folder,
    write_history,
)
from recjax.runtime.locks import try_lock

LOCK = ".lock"


@contextlib.contextmanager
def model_lock(model: Path) -> Iterator[None]:
    """Holds the lock that every change of a model's versions needs.

    It must be held during the comparison too, so that the candidate is compared with
    the model that it replaces.

    Raises:
      UserError: another process holds it, or the model is a link to another place.
    """
    check_link(model)
    versions = versions_folder(model)
    with writes_to(versions):
        versions.mkdir(exist_ok=True)
        file = (versions / LOCK).open("a")
    # The system releases the lock when the process ends, however it ends.
    with file:
        # The file that was opened may be one that another process has deleted since.
        if not try_lock(file) or not _is_same(file, versions / LOCK):
            raise UserError(
                f"{model}: another recjax.feedback is using it; wait until it ends"
            )
        try:
            yield
        finally:
            _delete_if_unused(versions)


def _is_same(file: IO[str], path: Path) -> bool:
    """Returns whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _delete_if_unused(versions: Path) -> None:
    """Deletes the directory of the versions if it has nothing but the lock."""
    with contextlib.suppress(OSError):
        if [path.name for path in versions.iterdir()] == [LOCK]:
            (versions / LOCK).unlink()
            versions.rmdir()


def promote(candidate: Path, model: Path, keep: int) -> str:
    """Makes a copy of a candidate the model; returns its version.

    Args:
      candidate: the directory of the candidate.
      model: the directory, or link, of the present model.
      keep: number of versions that are kept, the promoted one included, at least 1;
        those before it that were not rolled back.

    Raises:
      UserError: the candidate is damaged, or the versions cannot be written.
    """
    check_files(candidate)
    versions, version = versions_folder(model), model_version(candidate)
    with writes_to(versions):
        versions.mkdir(exist_ok=True)
        for part in versions.glob(f"{PART}*"):  # of a program that was killed
            shutil.rmtree(part, ignore_errors=True)
        _replace_by_link(model)
        _copy(candidate, versions / version)
        earlier = [name for name in promoted_versions(model) if name != version]
        write_history(versions, [*earlier, version])
        link_to_version(model, version)
        # Versions that were rolled back are not in the history, and go too.
        kept = [*earlier, version][-keep:]
        for name in all_versions(model):
            if name not in kept:
                _delete(versions / name)
    return version


def roll_back(model: Path) -> str:
    """Makes the version before the present one the model again; returns it.

    Raises:
      UserError: there is none, it is damaged, or the link cannot be written.
    """
    restore_link(model)
    promoted = promoted_versions(model)
    if len(promoted) < 2 or not model.is_symlink():
        raise UserError(f"{model}: there is no earlier version to go back to")
    versions = versions_folder(model)
    check_files(versions / promoted[-2])
    with writes_to(versions):
        link_to_version(model, promoted[-2])
        write_history(versions, promoted[:-1])
    return promoted[-2]


def _replace_by_link(model: Path) -> None:
    """Turns the directory of a model into a link to a version, once.

    There is no model for an instant, because a link cannot replace a directory. A
    program that is killed then has written the history, by which `restore_link` makes
    the link.
    """
    restore_link(model)
    if present_version(model):
        return
    check_files(model)
    versions, version = versions_folder(model), model_version(model)
    target = versions / version
    if target.exists():  # a copy of the same files, perhaps damaged
        _delete(target)
    earlier = [name for name in promoted_versions(model) if name != version]
    write_history(versions, [*earlier, version])
    os.replace(model, target)
    try:
        link_to_version(model, version)
    except BaseException:
        if not os.path.lexists(model):
            os.replace(target, model)
        raise


def _copy(candidate: Path, target: Path) -> None:
    """Copies a model to the place of its version, if it is not there and complete."""
    if target.exists():
        with contextlib.suppress(UserError):
            check_files(target)
            return
        _delete(target)
    part = target.with_name(f"{PART}{target.name}")
    shutil.copytree(candidate, part)
    check_files(part)
    os.replace(part, target)


def _delete(version: Path) -> None:
    """Deletes a version; if the program is killed, none is left that looks complete."""
    part = version.with_name(f"{PART}{version.name}")
    shutil.rmtree(part, ignore_errors=True)
    os.replace(version, part)
    shutil.rmtree(part, ignore_errors=True)
