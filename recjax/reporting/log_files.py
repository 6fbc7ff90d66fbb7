"""Cuts the logs of an interrupted run back to what they held at its checkpoint.

A checkpoint knows the length of every log. What was written after it is written again;
what is missing before it cannot be, so it is reported.
"""

import json
import os
from pathlib import Path

LENGTH_BYTES = 8  # of a record of an event file; little-endian, without what follows it
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

    A file that is shorter is cut after its last complete record.

    Returns:
      A problem, "" if nothing is missing.
    """
    if not path.is_file():
        return f"{path}: the file is missing, and its points with it"
    present = path.stat().st_size
    if present >= size:
        os.truncate(path, size)
        return ""
    os.truncate(path, _complete_bytes(path))
    return f"{path}: {size - present:,} of {size:,} bytes are missing at the end"


def _complete_bytes(path: Path) -> int:
    """Returns the number of bytes up to the end of the last complete record."""
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while len(head := file.read(LENGTH_BYTES)) == LENGTH_BYTES:
            length = int.from_bytes(head, "little")
            after = end + LENGTH_BYTES + CRC_BYTES + length + CRC_BYTES
            if after > size:
                break
            end = after
            file.seek(end)
    return end
