"""Numbered saves of arrays in a folder; the only importer of orbax.

Orbax writes the arrays. A save counts once its `manifest.json` is in place, which has
the SHA-256 of every file and of itself; what does not verify is passed over.
"""

import concurrent.futures
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from recjax.checkpointing import manifest as manifest_lib
from recjax.common.config import describe_changes
from recjax.common.errors import UserError


@dataclass(frozen=True)
class Checkpoint:
    """A save that verifies: its directory and what its manifest says."""

    path: Path
    manifest: dict[str, Any]

    @property
    def number(self) -> int:
        """Step, or index of a phase."""
        return int(self.path.name)

    @property
    def meta(self) -> dict[str, Any]:
        """What was saved beside the arrays."""
        meta: dict[str, Any] = self.manifest["meta"]
        return meta


class CheckpointDirectory:
    """A folder of numbered saves.

    Args:
      folder: absolute.
      keep: so many of the newest stay; 0 keeps all.
      say: receives a line about what could not be read or saved.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None]):
        self.folder, self.keep, self.log = folder, keep, say
        self._orbax = ocp.StandardCheckpointer()
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._pending: tuple[int, concurrent.futures.Future[None]] | None = None
        self._failed_last = False

    def steps(self) -> list[int]:
        """Of what lies in the folder, newest first; none of it is verified."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((int(p.name) for p in found if p.name.isdigit()), reverse=True)

    def verify(self, number: int) -> Checkpoint | None:
        """A save, if all of its bytes are as they were written; else says why not."""
        path = self.folder / str(number)
        found, problem = manifest_lib.verify(path)
        if found is None:
            self.log(f"{path}: passed over: {problem}")
            return None
        return Checkpoint(path, found)

    def read_meta(self, number: int) -> dict[str, Any] | None:
        """`meta` of a save that may be damaged; None where it cannot be read."""
        try:
            text = (self.folder / str(number) / manifest_lib.NAME).read_text(
                encoding="utf-8"
            )
            meta = json.loads(text)["meta"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return meta if isinstance(meta, dict) else None

    def save(
        self, number: int, tree: Any, meta: dict[str, Any], about: dict[str, Any]
    ) -> None:
        """Saves in the background; a save of that number is replaced.

        Args:
          number: names the save.
          tree: of arrays.
          meta: JSON values.
          about: JSON values that say for what run it may be restored.
        """
        self.wait()
        content = {"about": about, "meta": meta, "arrays": _shapes(tree)}
        path = self.folder / str(number)
        try:
            self._orbax.save(path, tree, force=True)
        except Exception as e:  # orbax and tensorstore raise many kinds
            self._failed(number, e)
            return
        self._failed_last = False
        self._pending = number, self._pool.submit(self._seal, path, content)

    def wait(self) -> bool:
        """Waits for the newest save; False, and said, if it has failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            number, future = pending
            try:
                future.result()
            except Exception as e:
                self._failed(number, e)
        return not self._failed_last

    def restore(self, saved: Checkpoint, like: Any) -> Any:
        """The arrays of a save, placed like those of `like`.

        Raises:
          UserError: arrays of other names, shapes or types; lists them.
        """
        there, here = saved.manifest["arrays"], _shapes(like)
        if there != here:
            raise UserError(
                f"{saved.path}: holds other arrays: {describe_changes(there, here)}"
            )
        return self._orbax.restore(saved.path, _abstract(like))

    def restore_plain(self, saved: Checkpoint) -> Any:
        """The arrays of a save of a flat dict, on the first device."""
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return self._orbax.restore(
            saved.path,
            {
                path: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
                for path, (shape, dtype) in saved.manifest["arrays"].items()
            },
        )

    def clear_parts(self, number: str = "*") -> None:
        """Deletes what a process that was killed, or had no room, left of saves."""
        for part in self.folder.glob(f"{number}.orbax-checkpoint-tmp*"):
            shutil.rmtree(part, ignore_errors=True)

    def close(self) -> None:
        """Waits for the save in the background."""
        self.wait()
        self._pool.shutdown()
        self._orbax.close()

    def _seal(self, path: Path, content: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index():
            return
        manifest_lib.write(path, content)
        # What has a higher number was passed over when the run was resumed.
        good = [
            n
            for n in self.steps()
            if n <= int(path.name)
            and (self.folder / str(n) / manifest_lib.NAME).exists()
        ]
        for n in set(self.steps()) - set(good[: self.keep] if self.keep else good):
            shutil.rmtree(self.folder / str(n), ignore_errors=True)

    def _failed(self, number: int, e: Exception) -> None:
        self._failed_last = True
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        self.log(f"{self.folder / str(number)}: NOT SAVED: {reason[:300]}")
        if not jax.process_index():
            self.clear_parts(str(number))


def _shapes(tree: Any) -> dict[str, list[Any]]:
    """Path -> [shape, dtype] of every array."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {
        ":".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path): [
            list(x.shape),
            str(x.dtype),
        ]
        for path, x in flat
    }


def _abstract(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )
