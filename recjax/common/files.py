"""Cache directory, hashes, and files that appear complete or not at all."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from recjax.common.errors import UserError, first_line

LFS_POINTER = b"version https://git-lfs.github.com/"  # how such a file begins


@contextlib.contextmanager
def atomic_files(*paths: Path, sync: bool = False) -> Iterator[list[Path]]:
    """Yields temporary paths to write to, and renames them to `paths` on success.

    A reader finds the old file or the new one and never a part of it. On an exception
    the old files stay and the temporary ones are deleted. Only one process at a time
    may write them. With `sync` the new files are complete even after a power failure.
    """
    # In the same directory, because a rename is atomic only within a file system. The
    # suffix stays at the end, because some writers choose their format by it.
    parts = [path.with_name(f".part.{path.name}") for path in paths]
    try:
        yield parts
        for part, path in zip(parts, paths, strict=True):
            if sync:
                with part.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def writes_to(path: Path) -> Iterator[None]:
    """Turns the errors of libraries that cannot write a file into one line.

    Raises:
      UserError: names the file and the cause.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # polars raises its own types, and OSError without a cause
        cause = getattr(e, "strerror", None) or first_line(e)
        raise UserError(f"{path}: cannot be written ({cause})") from None


def write_text_atomically(path: Path, text: str, *, sync: bool = False) -> None:
    """Writes a UTF-8 file that appears complete or not at all; see `atomic_files`."""
    with atomic_files(path, sync=sync) as (part,):
        part.write_text(text, encoding="utf-8")


def save_tensors(
    tensors: Mapping[str, np.ndarray],
    path: Path,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes a safetensors file that everyone may read whom the umask allows."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata)  # for the owner alone
    path.chmod(mode)


def read_bytes(path: Path) -> bytes:
    """Reads a regular file; a pipe or device could go on for ever.

    Raises:
      UserError: there is no such file, or it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise UserError(f"{path}: is {kind}")
        raw = path.read_bytes()
        if raw.startswith(LFS_POINTER):
            raise UserError(f"{path}: is a pointer of Git LFS; run git lfs pull")
        return raw
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None


def read_json(path: Path, advice: str = "", *, shape: type = dict) -> Any:
    """Reads a file with a JSON object, or another value.

    Args:
      path: the file.
      advice: what to do about a damaged file, for the error.
      shape: type of the value.

    Raises:
      UserError: there is no such file, or it is not JSON in UTF-8 with this shape.
    """
    raw, problem = read_bytes(path), ""
    try:
        content = json.loads(raw.decode())
        if isinstance(content, shape):
            return content
        problem = "not a JSON " + ("object" if shape is dict else shape.__name__)
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as e:  # no JSON, or an integer of thousands of digits
        problem = f"not JSON ({e})"
    raise UserError(f"{path}: {problem}{advice and '; '}{advice}")


def cache_dir() -> Path:
    """Returns `$RECJAX_CACHE`, `$XDG_CACHE_HOME/recjax` or `~/.cache/recjax`.

    Raises:
      UserError: there is no home directory, or a variable is not a path.
    """
    if own := os.environ.get("RECJAX_CACHE"):
        return user_path(own, "RECJAX_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path(shared, "cache (set RECJAX_CACHE to choose another)") / "recjax"


def user_path(text: str, name: str) -> Path:
    """Resolves a path that comes from the user; `~` is the home directory.

    Args:
      text: the path.
      name: the option, key or variable that holds it, for errors.

    Raises:
      UserError: it is empty, not valid UTF-8, or in the home of an unknown user.
    """
    if not text or "\0" in text:
        raise UserError(f"{name}: {text!r} is not a path")
    try:
        text.encode()  # names with other bytes cannot be stored in JSON or checkpoints
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise UserError(f"{name}: {text!a} is not valid UTF-8") from None
    except RuntimeError:
        raise UserError(
            f"{name}: {text!r}: there is no home directory; write the whole path"
        ) from None


def sha256(content: str | bytes) -> str:
    """SHA-256 of a text (as UTF-8) or of bytes, in hexadecimal digits."""
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(raw).hexdigest()


def file_sha256(path: Path, *, skip_last: int = 0) -> str:
    """SHA-256 of a file in hexadecimal digits, without its last `skip_last` bytes."""
    remaining = path.stat().st_size - skip_last
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while remaining > 0 and (chunk := file.read(min(remaining, 2**20))):
            digest.update(chunk)
            remaining -= len(chunk)
    return digest.hexdigest()


def hash_arrays(arrays: Iterable[tuple[str, Any]], *settings: Any) -> str:
    """Hash of settings and of arrays with their names, in 32 hexadecimal digits."""
    digest = hashlib.sha256(repr(settings).encode())
    # Every byte of an array counts, and so do its name, its dtype and its shape.
    for name, x in arrays:
        array = np.ascontiguousarray(x)
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()[:32]
