"""Cuts the logs of an interrupted run back to what they held at its checkpoint.

A checkpoint knows the length of every log. What was written after it is written again;
what is missing before it cannot be, so it is reported.
"""

import json
import os
from pathlib import Path
from typing import IO

from recjax.reporting.tensorboard import masked_crc32c

LENGTH_BYTES = 8  # each record of an event file begins with its length, little-endian
CRC_BYTES = 4  # after the length, and again after the content


def cut_jsonl(path: Path, num_records: int) -> tuple[str, int, str]:
    """Returns the first records of a file of JSON lines.

    Args:
      path: the file, which may not exist.
      num_records: number of records at the checkpoint.

    Returns:
      The lines as text, their number, and a problem, "" if no record is missing.
    """
    raw = path.read_bytes() if path.is_file() else b""
    kept = []
    # The last part is empty, or an unfinished line.
    for line in raw.split(b"\n")[:-1][:num_records]:
        try:
            text = line.decode()
            json.loads(text)
        except (ValueError, RecursionError):  # also invalid UTF-8
            break
        kept.append(text + "\n")
    missing = num_records - len(kept)
    problem = f"{path}: {missing:,} of {num_records:,} records are missing"
    return "".join(kept), len(kept), problem if missing else ""


def cut_events(path: Path, size: int) -> str:
    """Cuts an event file of TensorBoard to its size at the checkpoint.

    A file that is shorter, or damaged, is cut before the first record that TensorBoard
    could not read.

    Returns:
      A problem, "" if nothing is missing.
    """
    if not path.is_file():
        return f"{path}: the file is missing, and its points with it"
    readable = _readable_bytes(path, size)
    os.truncate(path, readable)
    if readable == size:
        return ""
    return f"{path}: {size - readable:,} of {size:,} bytes are missing or damaged"


def _readable_bytes(path: Path, size: int) -> int:
    """Returns the end of the last record, within a size, before the first bad one."""
    end = 0
    with path.open("rb") as file:
        while (head := _read_checked(file, LENGTH_BYTES)) is not None:
            content = _read_checked(file, int.from_bytes(head, "little"))
            if content is None or file.tell() > size:
                break
            end = file.tell()
    return end


def _read_checked(file: IO[bytes], length: int) -> bytes | None:
    """Reads bytes and the checksum that follows; None if they do not fit."""
    content, crc = file.read(length), file.read(CRC_BYTES)
    if len(crc) < CRC_BYTES or masked_crc32c(content) != int.from_bytes(crc, "little"):
        return None
    return content
