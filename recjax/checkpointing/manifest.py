"""The manifest of a checkpoint: the SHA-256 of each of its files, and of itself."""

import json
from pathlib import Path
from typing import Any

from recjax.common.files import file_sha256, sha256, write_text_atomically

NAME = "manifest.json"


def verify(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Returns the manifest if every byte is as it was written, else None and why."""
    try:
        text = (path / NAME).read_text(encoding="utf-8")
        manifest = json.loads(text)
        digest = manifest.pop("sha256")
        # The digest covers the parsed content, so the text is compared as well: a
        # damaged byte of white space would otherwise go unnoticed.
        if text != _render(manifest) or digest != _own_digest(manifest):
            return None, f"{NAME} is damaged"
        known, present = manifest["files"], set(_files(path))
        if missing := sorted(set(known) - present):
            return None, f"{missing[0]} is missing"
        if extra := sorted(present - set(known)):
            return None, f"unexpected file {extra[0]}"
        for name, digest in known.items():
            if file_sha256(path / name) != digest:
                return None, f"{name} is damaged"
    except FileNotFoundError:
        return None, f"it has no {NAME}: saving it was never finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return None, f"{NAME} is damaged ({type(e).__name__})"
    return manifest, ""


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes the manifest of a checkpoint, with the digests of its files."""
    digests = {name: file_sha256(path / name) for name in _files(path)}
    text = _render({**content, "files": digests})
    # The rename makes the checkpoint valid: its bytes must be on the disk by then.
    write_text_atomically(path / NAME, text, sync=True)


def _own_digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content))


def _render(content: dict[str, Any]) -> str:
    return json.dumps({**content, "sha256": _own_digest(content)}, indent=1)


def _files(path: Path) -> list[str]:
    files = (p for p in path.rglob("*") if p.is_file() and p.name != NAME)
    return sorted(str(p.relative_to(path)) for p in files)
