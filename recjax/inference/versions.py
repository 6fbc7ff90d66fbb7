"""The versions of a model, and the link that names the present one.

The directory of a model that was promoted is a link to one of its versions, which are
next to it:

    shop/model -> model.versions/3f0c6a1b2c4d
    shop/model.versions/3f0c6a1b2c4d, shop/model.versions/9a8b..., ...
    shop/model.versions/promoted.txt

Renaming a link is atomic: a reader finds one version or the other, and complete.
"""

import os
import re
import tempfile
from pathlib import Path

from recjax.common.errors import UserError
from recjax.common.files import write_text_atomically

VERSIONS = ".versions"  # follows the name of the model
HISTORY = "promoted.txt"  # versions in the order of their promotion, the newest last
PART = ".part."  # begins the names of what is not complete
MANIFEST = "manifest.json"


def versions_folder(model: Path) -> Path:
    """Returns the directory of a model's versions, which may not exist."""
    path = Path(os.path.abspath(model))  # `.` has no name; links are not followed
    return path.with_name(path.name + VERSIONS)


def present_version(model: Path) -> str | None:
    """Returns the version that a model's link names; None for a directory.

    Raises:
      UserError: the link leads somewhere else than to the model's versions.
    """
    if not model.is_symlink():
        return None
    target = model.parent / os.readlink(model)
    if os.path.realpath(target.parent) != os.path.realpath(versions_folder(model)):
        raise UserError(
            f"{model}: is a link to {os.readlink(model)}; name the directory itself"
        )
    return target.name


def all_versions(model: Path) -> list[str]:
    """Returns all versions of a model, those that were rolled back too."""
    versions = versions_folder(model)
    if not versions.is_dir():
        return []
    return sorted(path.name for path in versions.iterdir() if _is_version(path))


def check_link(model: Path) -> None:
    """Checks that a model is a directory, or a link to one of its versions.

    Raises:
      UserError: it is a link to another place.
    """
    present_version(model)


def promoted_versions(model: Path) -> list[str]:
    """Returns the versions in the order of their promotion, up to the present one.

    If the file of promotions is damaged, they are those that were saved before the
    present one, in the order of that.
    """
    versions, present = versions_folder(model), present_version(model)
    names, complete = _read_history(versions)
    if not complete or (present and present not in names):
        names = _saved_before(model, present)
    if not present:
        return names
    if present not in names:
        return [*names, present]
    return names[: names.index(present) + 1]


def write_history(versions: Path, names: list[str]) -> None:
    """Writes the file of promotions."""
    write_text_atomically(versions / HISTORY, "\n".join(names) + "\n")


def link_to_version(model: Path, version: str) -> None:
    """Makes a model's link name a version."""
    versions = versions_folder(model)
    with tempfile.TemporaryDirectory(prefix=PART, dir=versions) as folder:
        link = Path(folder) / "link"
        link.symlink_to(Path(versions.name) / version)
        os.replace(link, model)


def restore_link(model: Path) -> None:
    """Makes the link of a model again, if it is missing and there are versions.

    A first promotion moves the directory before it makes the link, and may have been
    killed between the two.

    Raises:
      UserError: the link cannot be written.
    """
    try:
        if os.path.lexists(model) or not os.path.isdir(versions_folder(model)):
            return
        if names := promoted_versions(model):
            link_to_version(model, names[-1])
    except OSError as e:
        raise UserError(
            f"{model}: is missing, and cannot be made a link to its newest version in "
            f"{versions_folder(model)} ({e.strerror})"
        ) from None


def _read_history(versions: Path) -> tuple[list[str], bool]:
    """Returns the promoted versions that exist, and whether all lines are versions."""
    path = versions / HISTORY
    if not path.is_file():
        return [], False
    lines = path.read_bytes().decode(errors="replace").split()
    names = [line for line in lines if re.fullmatch("[0-9a-f]{12}", line)]
    return [x for x in names if _is_version(versions / x)], len(names) == len(lines)


def _saved_before(model: Path, present: str | None) -> list[str]:
    """Returns the versions that were saved before the present one, the oldest first."""
    versions = versions_folder(model)
    saved = {
        name: (versions / name / MANIFEST).stat().st_mtime
        for name in all_versions(model)
    }
    end = saved.pop(present, None) if present else None
    names = [x for x, time in saved.items() if end is None or time <= end]
    return sorted(names, key=lambda name: saved[name])


def _is_version(path: Path) -> bool:
    named = re.fullmatch("[0-9a-f]{12}", path.name) is not None
    return named and (path / MANIFEST).is_file()
