"""Downloads from the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from recjax.common.errors import UserError, first_line


def is_hub_id(name: str) -> bool:
    """Returns whether a name is `owner/name`, perhaps with `@revision`.

    If there is a directory with the name of the owner, the name is a path instead.
    """
    if Path(name.partition("/")[0]).is_dir():
        return False
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", name) is not None


def download_snapshot(name: str, patterns: Sequence[str] | None = None) -> Path:
    """Downloads a repository, or finds it in the Hub's cache; returns its directory.

    Args:
      name: `owner/name` or, for a branch, tag or commit, `owner/name@revision`.
      patterns: patterns of the names of files to download; None downloads all.

    Raises:
      UserError: the download failed.
    """
    import huggingface_hub  # only needed for Hub ids

    repository, _, revision = name.partition("@")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=None if patterns is None else list(patterns),
            )
        )
    except Exception as e:  # the client raises many types, mostly network errors
        problem = (
            "is no directory, and could not be downloaded from the Hugging Face Hub"
        )
        raise UserError(
            f"{name}: {problem} ({first_line(e)}); name a directory, or check the "
            "network"
        ) from None
