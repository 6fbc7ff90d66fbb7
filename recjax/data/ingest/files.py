"""The bytes of a table: one file, a compressed file, or a directory of parts."""

import gzip
import zlib
from pathlib import Path

from recjax.common.errors import UserError
from recjax.common.files import read_bytes, sha256

GZIP = b"\x1f\x8b"  # how a compressed file begins
GZIP_SUFFIX = ".gz"
UNREADABLE = {  # how files begin that are not read
    b"PK\x03\x04": "an archive or a spreadsheet; unpack it, or save it as CSV",
    b"BZh": "compressed by bzip2; unpack it, or compress it by gzip",
    b"\xfd7zXZ": "compressed by xz; unpack it, or compress it by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it, or compress it by gzip",
}


def find_table(path: Path) -> Path:
    """Returns the path of a table, or that of its compressed file.

    Raises:
      UserError: there are both, or neither; names similar files in the directory.
    """
    compressed = path.with_name(path.name + GZIP_SUFFIX)
    found = [candidate for candidate in (path, compressed) if candidate.exists()]
    if len(found) > 1:
        raise UserError(f"{path}: is there, and {compressed.name} too; delete one")
    if found:
        return found[0]
    stem = path.name.partition(".")[0]
    similar = sorted(other.name for other in path.parent.glob("*") if other != path)
    near = [name for name in similar if name.startswith(stem)] or similar
    there = f"; the directory has {', '.join(near[:5])}" if near else ""
    raise UserError(
        f"{path}: no such file; check data.source, data.file_prefix and data.format"
        f"{there}"
    )


def read_parts(path: Path) -> list[bytes]:
    """Reads a file, or all parts in a directory as Spark and others write it.

    Raises:
      UserError: a file cannot be read or decompressed, or there is no part.
    """
    if not path.is_dir():
        return [_read(path)]
    hidden = ("_", ".")  # such as _SUCCESS and checksums
    parts = sorted(p for p in path.iterdir() if not p.name.startswith(hidden))
    if not parts:
        raise UserError(f"{path}: a directory without parts of a table")
    return [_read(part) for part in parts]


def table_digest(path: Path) -> str:
    """Returns the SHA-256 that `read_table` gives a table."""
    return sha256(b"".join(read_parts(path)))


def join_lines(parts: list[bytes], path: Path) -> bytes:
    """Joins the cleaned parts of a text table; each begins with the same header.

    Raises:
      UserError: headers differ.
    """
    header = parts[0].partition(b"\n")[0]
    joined = [parts[0]]
    for part in parts[1:]:
        first, _, rest = part.partition(b"\n")
        if first != header:
            raise UserError(f"{path}: its parts have different headers")
        joined.append(rest)
    return b"".join(joined)


def _read(path: Path) -> bytes:
    raw = read_bytes(path)
    for magic, problem in UNREADABLE.items():
        if raw.startswith(magic):
            raise UserError(f"{path}: is {problem}")
    if not raw.startswith(GZIP):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path}: cannot be decompressed ({e})") from None
