"""`config.py` where the save of what enters the second phase fails, once."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recjax.checkpointing import manifest
from tests.faults import config

_write = manifest.write


def get_config(data: str) -> ConfigDict:
    """Of the tiny run."""
    manifest.write = _write_once_not
    return config.get_config(data)


def _write_once_not(path: Path, content: dict[str, Any]) -> None:
    if (path.parent.name, path.name) == ("params", "1"):
        manifest.write = _write
        raise OSError("no room, for once")
    _write(path, content)
