"""Versions of a model, and the one that is used: changed by renaming a link.

The directory of a model is a link to one of its versions, which are next to it:

    shop/model -> model.versions/3f0c6a1b2c4d
    shop/model.versions/3f0c6a1b2c4d, shop/model.versions/9a8b...

Renaming a link is atomic: a reader finds one version or the other, and complete.
"""

import os
import shutil
from pathlib import Path

from recjax.common.errors import UserError
from recjax.inference.files import check_files, model_version

VERSIONS = ".versions"  # follows the name of the model
HISTORY = "promoted.txt"  # versions in the order of their promotion, the newest last


def promote(candidate: Path, model: Path, keep: int) -> str:
    """Makes a copy of a candidate the model; returns its version.

    Args:
      candidate: the directory of the candidate.
      model: the directory, or link, of the present model.
      keep: number of versions that are kept, the promoted one included.

    Raises:
      UserError: the candidate is damaged.
    """
    check_files(candidate)
    versions = _adopt(model)
    version = model_version(candidate)
    target = versions / version
    if not target.exists():
        part = versions / f".part.{version}"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(candidate, part)
        check_files(part)
        os.replace(part, target)
    _point(model, target)
    promoted = [*(x for x in _promoted(versions) if x != version), version]
    _write_promoted(versions, promoted[-keep:])
    for old in promoted[:-keep]:
        shutil.rmtree(versions / old, ignore_errors=True)
    return version


def roll_back(model: Path) -> str:
    """Makes the version before the present one the model again; returns it.

    Raises:
      UserError: there is none.
    """
    versions = _versions(model)
    promoted = _promoted(versions)
    if len(promoted) < 2 or not model.is_symlink():
        raise UserError(f"{model}: there is no earlier version to go back to")
    earlier = versions / promoted[-2]
    check_files(earlier)
    _point(model, earlier)
    _write_promoted(versions, promoted[:-1])
    return promoted[-2]


def _versions(model: Path) -> Path:
    path = Path(os.path.abspath(model))  # `.` has no name; links are not followed
    return path.with_name(path.name + VERSIONS)


def _adopt(model: Path) -> Path:
    """Turns the directory of a model into a link to a version, once."""
    versions = _versions(model)
    versions.mkdir(exist_ok=True)
    if not model.is_symlink():
        version = model_version(model)
        # For an instant there is no model; a service has it in memory.
        os.replace(model, versions / version)
        _point(model, versions / version)
        _write_promoted(versions, [version])
    return versions


def _point(model: Path, target: Path) -> None:
    part = model.with_name(f".part.{model.name}")
    part.unlink(missing_ok=True)
    part.symlink_to(os.path.relpath(target, model.parent))
    os.replace(part, model)


def _promoted(versions: Path) -> list[str]:
    path = versions / HISTORY
    names = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return [name for name in names if (versions / name).is_dir()]


def _write_promoted(versions: Path, names: list[str]) -> None:
    part = versions / f".part.{HISTORY}"
    part.write_text("\n".join(names) + "\n", encoding="utf-8")
    os.replace(part, versions / HISTORY)
