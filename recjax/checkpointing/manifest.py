"""The manifest of a save: the SHA-256 of each of its files, and of itself."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

NAME = "manifest.json"


def verify(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The manifest of a save whose files are as it says; else None and why not."""
    try:
        text = (path / NAME).read_text(encoding="utf-8")
        manifest = json.loads(text)
        own = manifest.pop("sha256")
        if text != _render(manifest) or own != _own(manifest):
            return None, f"{NAME} is damaged"
        known, there = manifest["files"], set(_files(path))
        if missing := sorted(set(known) - there):
            return None, f"{missing[0]} is missing"
        if extra := sorted(there - set(known)):
            return None, f"{extra[0]} is not of it"
        for name, digest in known.items():
            if _digest(path / name) != digest:
                return None, f"{name} is damaged"
    except FileNotFoundError:
        return None, f"it has no {NAME}: it was never finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return None, f"{NAME} is damaged ({type(e).__name__})"
    return manifest, ""


def write(path: Path, content: dict[str, Any]) -> None:
    """Puts the manifest of a save in place, with the digests of its files."""
    content = {
        **content,
        "files": {name: _digest(path / name) for name in _files(path)},
    }
    part = path / f".{NAME}.part"
    with part.open("w") as file:
        file.write(_render(content))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path / NAME)


def _own(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _render(content: dict[str, Any]) -> str:
    return json.dumps({**content, "sha256": _own(content)}, indent=1)


def _files(path: Path) -> list[str]:
    every = (p for p in path.rglob("*") if p.is_file() and p.name != NAME)
    return sorted(str(p.relative_to(path)) for p in every)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
