"""Numbered checkpoints of arrays in a directory; the only file that imports Orbax.

Orbax writes the arrays. A checkpoint is valid once its `manifest.json` is in place,
which has the SHA-256 of every file and of itself. An invalid one is skipped.

Orbax's `CheckpointManager` cannot stand in for this file: it counts damaged checkpoints
among the newest ones that it keeps, deletes the older ones before a manifest can be
written, and neither overwrites a damaged step nor reads a manifest before a restore.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from recjax.checkpointing import manifest as manifest_lib
from recjax.common.config import describe_changes
from recjax.common.errors import UserError, first_line

Identity = dict[str, dict[str, Any]]  # of a run, see `Checkpoints.check_identity`

PATTERNS = set("[]\\")  # Orbax reads them as a pattern, or as a separator
DESCRIPTORS = Path("/proc/self/fd")
UNFINISHED = ".orbax-checkpoint-tmp"  # follows the number in names of unfinished saves
# Any of these tells a checkpoint, damaged or not, from somebody's numbered directory.
CONTENT = (manifest_lib.NAME, "_METADATA", "_CHECKPOINT_METADATA", "d")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was verified: its directory and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def number(self) -> int:
        """Global step, or index of a phase."""
        return int(self.path.name)

    @property
    def meta(self) -> dict[str, Any]:
        """The JSON values that were saved with the arrays."""
        return self.manifest["meta"]


class CheckpointDirectory:
    """A directory of numbered checkpoints.

    The `keep` newest ones are kept; 0 keeps all. `log` receives a line about each that
    could not be read or saved. The path is absolute.
    """

    def __init__(self, folder: Path, keep: int, log: Callable[[str], None]):
        self.folder = folder
        self.keep = keep
        self.log = log
        self._orbax = ocp.StandardCheckpointer()
        # One thread: checkpoints are committed in the order in which they were saved.
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._pending: tuple[int, concurrent.futures.Future[None]] | None = None
        self._last_failed = False
        self._descriptor: int | None = None  # of the folder, if Orbax needs it

    def steps(self) -> list[int]:
        """Numbers of the checkpoints in the directory, newest first, not verified."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        names = (path.name for path in found if is_checkpoint(path))
        return sorted(map(int, names), reverse=True)

    def verify(self, number: int) -> Checkpoint | None:
        """Returns a checkpoint whose bytes are as they were written, else logs why."""
        path = self.folder / str(number)
        manifest, problem = manifest_lib.verify(path)
        if manifest is None:
            self.log(f"{path}: skipped: {problem}")
            return None
        return Checkpoint(path, manifest)

    def read_meta(self, number: int) -> dict[str, Any] | None:
        """`meta` of a checkpoint that may be damaged; None if it cannot be read."""
        try:
            meta = json.loads(self._manifest_path(number).read_bytes())["meta"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return meta if isinstance(meta, dict) else None

    def save(
        self, number: int, tree: Any, meta: dict[str, Any], identity: Identity
    ) -> None:
        """Saves arrays in the background; replaces a checkpoint of the same number.

        `meta` and `identity` are JSON values for the manifest.
        """
        self.wait()
        content = {"identity": identity, "meta": meta, "arrays": _describe_arrays(tree)}
        path = self.folder / str(number)
        try:
            if path.exists() and not is_checkpoint(path):
                raise FileExistsError("the path exists, and is not a checkpoint")
            self._orbax.save(self._orbax_path(number), tree, force=True)
        except Exception as e:  # orbax and tensorstore raise many kinds
            self._report_failure(number, e)
            return
        self._last_failed = False
        self._pending = number, self._pool.submit(self._commit, path, content)

    def wait(self) -> bool:
        """Waits for the newest save; returns False, and logs why, if it failed."""
        if self._pending is not None:
            number, future = self._pending
            self._pending = None
            try:
                future.result()
            except Exception as e:
                self._report_failure(number, e)
        return not self._last_failed

    def restore(self, checkpoint: Checkpoint, like: Any) -> Any:
        """Restores the arrays of a checkpoint, placed like those of `like`.

        Raises:
          UserError: the arrays have other names, shapes or dtypes; lists them.
        """
        saved, current = checkpoint.manifest["arrays"], _describe_arrays(like)
        if saved != current:
            changes = describe_changes(saved, current, names=("saved", "needed"))
            raise UserError(
                f"{checkpoint.path}: holds other arrays ({changes}); choose another "
                "--workdir"
            )
        like = jax.tree.map(_abstract, like)
        return self._orbax.restore(self._orbax_path(checkpoint.number), like)

    def restore_plain(self, checkpoint: Checkpoint) -> Any:
        """Restores the arrays of a checkpoint of a flat dict, on the first device."""
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = {
            path: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
            for path, (shape, dtype) in checkpoint.manifest["arrays"].items()
        }
        return self._orbax.restore(self._orbax_path(checkpoint.number), like)

    def delete_unfinished(self, number: str = "*") -> None:
        """Deletes temporary directories of saves that were killed or failed."""
        for part in self.folder.glob(f"{number}{UNFINISHED}*"):
            shutil.rmtree(part, ignore_errors=True)

    def close(self) -> None:
        """Waits for the save in the background."""
        self.wait()
        self._pool.shutdown()
        self._orbax.close()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _orbax_path(self, number: int) -> Path:
        """Returns the checkpoint's path, through /proc/self/fd if it has `PATTERNS`.

        Orbax would take these characters for a pattern.
        """
        if not PATTERNS & set(str(self.folder)):
            return self.folder / str(number)
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.folder, os.O_RDONLY)
        return DESCRIPTORS / str(self._descriptor) / str(number)

    def _commit(self, path: Path, content: dict[str, Any]) -> None:
        """Writes the manifest, then deletes the checkpoints that are not kept."""
        self._orbax.wait_until_finished()
        if jax.process_index():
            return
        manifest_lib.write(path, content)
        # A checkpoint with a higher number was skipped as damaged when the run was
        # resumed: it must neither be restored later nor count as one of those kept.
        numbers = [number for number in self.steps() if number <= int(path.name)]
        complete = [n for n in numbers if self._manifest_path(n).exists()]
        kept = complete[: self.keep or None]
        for number in set(self.steps()) - set(kept):
            # Renamed first: a process that is killed leaves no half of a checkpoint.
            deleted = self.folder / f"{number}{UNFINISHED}-deleted"
            shutil.rmtree(deleted, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.folder / str(number)).rename(deleted)
            shutil.rmtree(deleted, ignore_errors=True)

    def _manifest_path(self, number: int) -> Path:
        return self.folder / str(number) / manifest_lib.NAME

    def _report_failure(self, number: int, error: Exception) -> None:
        self._last_failed = True
        reason = first_line(error)[:300]
        self.log(f"{self.folder / str(number)}: NOT SAVED: {reason}")
        if not jax.process_index():
            self.delete_unfinished(str(number))


def is_checkpoint(path: Path) -> bool:
    """Returns whether recjax has saved a checkpoint at this path, damaged or not."""
    return (
        re.fullmatch("0|[1-9][0-9]*", path.name) is not None
        and path.is_dir()
        and not path.is_symlink()
        and any((path / name).exists() for name in CONTENT)
    )


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _describe_arrays(tree: Any) -> dict[str, list[Any]]:
    """Maps the path of every array to its [shape, dtype], as JSON values."""
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        parts = [str(getattr(k, "key", getattr(k, "name", k))) for k in path]
        found[":".join(parts)] = [list(x.shape), str(x.dtype)]
    return found
