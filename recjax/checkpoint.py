"""Save and verify and restore; the only importer of orbax.

`checkpoints/last/<step>` holds the newest states, each with the best parameters of its
phase and where the run stood; `checkpoints/params/0` all parameters before training,
`checkpoints/params/<i>` those that the first i phases have trained, and how they enter
the next one: frozen weights are written once. Orbax writes the arrays. A save counts
once its `manifest.json` is in place, which has the SHA-256 of every file and of itself;
what does not verify is passed over.
"""

import concurrent.futures
import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from recjax import manifest, trees
from recjax.errors import UserError
from recjax.steps import TrainState


@dataclass(frozen=True)
class Saved:
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


class Steps:
    """A folder of numbered saves.

    Args:
      folder: absolute.
      keep: so many of the newest stay; 0 keeps all.
      say: receives a line about what could not be read or saved.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None]):
        self.folder, self.keep, self.say = folder, keep, say
        self._orbax = ocp.StandardCheckpointer()
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._pending: tuple[int, concurrent.futures.Future[None]] | None = None
        self._failed_last = False

    def numbers(self) -> list[int]:
        """Of what lies in the folder, newest first; none of it is verified."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((int(p.name) for p in found if p.name.isdigit()), reverse=True)

    def verify(self, number: int) -> Saved | None:
        """A save, if all of its bytes are as they were written; else says why not."""
        path = self.folder / str(number)
        found, problem = manifest.verify(path)
        if found is None:
            self.say(f"{path}: passed over: {problem}")
            return None
        return Saved(path, found)

    def read_meta(self, number: int) -> dict[str, Any] | None:
        """`meta` of a save that may be damaged; None where it cannot be read."""
        try:
            text = (self.folder / str(number) / manifest.NAME).read_text(
                encoding="utf-8"
            )
            meta: dict[str, Any] = json.loads(text)["meta"]
            meta["phase"] = meta.get("phase")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return meta

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

    def restore(self, saved: Saved, like: Any) -> Any:
        """The arrays of a save, placed like those of `like`.

        Raises:
          UserError: arrays of other names, shapes or types; lists them.
        """
        there, here = saved.manifest["arrays"], _shapes(like)
        if there != here:
            raise UserError(f"{saved.path}: holds other arrays: {_diff(there, here)}")
        return self._orbax.restore(saved.path, _abstract(like))

    def restore_plain(self, saved: Saved) -> Any:
        """The arrays of a save of a flat dict, on the first device."""
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return self._orbax.restore(
            saved.path,
            {
                path: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
                for path, (shape, dtype) in saved.manifest["arrays"].items()
            },
        )

    def close(self) -> None:
        """Waits for the save in the background."""
        self.wait()
        self._pool.shutdown()
        self._orbax.close()

    def _seal(self, path: Path, content: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index():
            return
        manifest.write(path, content)
        # What has a higher number was passed over when the run was resumed.
        good = [
            n
            for n in self.numbers()
            if n <= int(path.name) and (self.folder / str(n) / manifest.NAME).exists()
        ]
        for n in set(self.numbers()) - set(good[: self.keep] if self.keep else good):
            shutil.rmtree(self.folder / str(n), ignore_errors=True)

    def _failed(self, number: int, e: Exception) -> None:
        self._failed_last = True
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        self.say(f"{self.folder / str(number)}: NOT SAVED: {reason[:300]}")
        if not jax.process_index():
            for part in self.folder.glob(f"{number}.orbax-checkpoint-tmp*"):
                shutil.rmtree(part, ignore_errors=True)


class Checkpoints:
    """The checkpoints of a run directory.

    Args:
      workdir: the run directory.
      say: receives a line about what could not be read or saved.
      keep: of the newest states, how many stay.
    """

    def __init__(self, workdir: Path, say: Callable[[str], None], keep: int = 2):
        folder = (workdir / "checkpoints").resolve()
        self._last = Steps(folder / "last", keep, say)
        self._params = Steps(folder / "params", 0, say)
        self.about: dict[str, Any] = {}
        self.entered, self.inside = self._find()
        self._entering: tuple[int, trees.Flat, Any] | None = None  # until it is saved
        self._whole = self.entered
        if self.entered is not None and self.entered.number:
            self._whole = self._params.verify(0)
            if self._whole is None:
                raise self._none_whole()

    def _find(self) -> tuple[Saved | None, Saved | None]:
        """The newest verified parameters, and the newest verified state that goes on
        from them. Every process takes what the first one finds."""
        entered = inside = None
        if not jax.process_index():
            entered = _first(self._params, lambda meta: True)
            if entered is not None:
                index = entered.number
                inside = _first(self._last, lambda meta: meta["phase"] == index)
            elif self._params.numbers():
                raise self._none_whole()
        if jax.process_count() > 1:
            found = [-1 if s is None else s.number for s in (entered, inside)]
            index, step = multihost_utils.broadcast_one_to_all(np.array(found))
            if jax.process_index():
                entered = self._params.verify(index) if index >= 0 else None
                inside = self._last.verify(step) if step >= 0 else None
        return entered, inside

    def _none_whole(self) -> UserError:
        return UserError(
            f"{self._params.folder}: no save is whole; choose another "
            f"--workdir, or delete {self._params.folder.parent} to start anew"
        )

    @property
    def standing(self) -> dict[str, Any] | None:
        """`meta` of the save that a resumed run continues from; None before any."""
        saved = self.inside or self.entered
        return saved.meta if saved else None

    def bind(self, about: dict[str, dict[str, Any]]) -> list[str]:
        """Says what run this is; returns what is declared to differ from the saved.

        Args:
          about: `must` (config, data, catalogue) has to be what it was; `may`
            (versions, devices) may differ, but results are then not the same bits.

        Raises:
          UserError: a save of another run; says what differs.
        """
        self.about = about
        saved = self.inside or self.entered
        if saved is None:
            return []
        there = saved.manifest["about"]
        if there["must"] != about["must"]:
            differ = _diff(there["must"], about["must"])
            raise UserError(
                f"{saved.path}: is of another run: {differ}; choose another --workdir"
            )
        if there["may"] != about["may"]:
            return [f"{k}: {v}" for k, v in _changes(there["may"], about["may"])]
        return []

    def save_last(
        self, step: int, state: TrainState, best: trees.Flat, more: Any, meta: Any
    ) -> None:
        """Saves in the background what a resumed run needs.

        Args:
          step: global step.
          state: of the phase.
          best: the trainable parameters with the best validation metric.
          more: other arrays that the next steps depend on.
          meta: JSON values.
        """
        if not self._enter():
            return  # without what enters the phase its states are of no use
        tree = {"state": state, "best": best, "more": more}
        self._last.save(step, tree, meta, self.about)

    def restore_last(
        self, state: TrainState, more: Any
    ) -> tuple[TrainState, trees.Flat, Any]:
        """State, best parameters and other arrays, placed like the ones given."""
        assert self.inside is not None
        like = {"state": state, "best": state.trainable, "more": more}
        tree = self._last.restore(self.inside, like)
        return tree["state"], tree["best"], tree["more"]

    def save_params(self, index: int, trained: trees.Flat, meta: Any) -> None:
        """Saves in the background the parameters as they enter phase `index`.

        Until they are saved the newest state of the phase before is what a resumed run
        goes on from.

        Args:
          index: of the phase; 0 before any.
          trained: by the phases before; all parameters before any.
          meta: JSON values.
        """
        self._last.wait()
        self._entering = index, trained, meta
        self._params.save(*self._entering, self.about)

    def _enter(self) -> bool:
        """Whether what enters the phase is saved; where it failed it is tried again.

        Not by one of several processes: the others would not know of it.
        """
        saved = self._params.wait()
        alone = jax.process_count() == 1
        if not saved and alone and self._entering is not None:
            self._params.save(*self._entering, self.about)
            saved = self._params.wait()
        if saved:
            self._entering = None
        return saved

    def restore_params(self, like: trees.Flat) -> tuple[trees.Flat, list[str]]:
        """All parameters as they enter the phase, and the paths that were trained.

        Args:
          like: all parameters; the restored ones are placed like them.
        """
        assert self.entered is not None
        assert self._whole is not None
        params: trees.Flat = self._params.restore(self._whole, like)
        if not self.entered.number:
            return params, []
        trained = list(self.entered.manifest["arrays"])
        there = {path: like[path] for path in trained}
        return params | self._params.restore(self.entered, there), trained

    def wait(self) -> bool:
        """Waits for what is being saved; False, and said, if something was not."""
        return self._params.wait() and self._last.wait()

    def close(self) -> None:
        """Waits for background saves."""
        self._last.close()
        self._params.close()


def read_params(workdir: Path, index: int | None = None) -> trees.Flat:
    """All parameters of a run, on the first device.

    Args:
      workdir: the run directory.
      index: after so many phases; the newest if None.

    Raises:
      UserError: they are not there, or damaged.
    """
    folder, said = (workdir / "checkpoints" / "params").resolve(), list[str]()
    with contextlib.closing(Steps(folder, 0, said.append)) as steps:
        newest = max(steps.numbers(), default=0) if index is None else index
        saves = [steps.verify(number) for number in sorted({0, newest})]
        params: trees.Flat = {}
        for saved in saves:
            if saved is None:
                raise UserError(said[0])
            params |= steps.restore_plain(saved)
    return params


def _first(steps: Steps, fits: Callable[[dict[str, Any]], bool]) -> Saved | None:
    """The newest save that verifies, of those whose `meta` fits."""
    for number in steps.numbers():
        meta = steps.read_meta(number)  # not verified; decides only what to look at
        if meta is not None and not fits(meta):
            continue
        if (saved := steps.verify(number)) and fits(saved.meta):
            return saved
    return None


def _shapes(tree: Any) -> dict[str, list[Any]]:
    """Path -> [shape, dtype] of every array."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "".join(str(getattr(k, "key", getattr(k, "name", k))) + ":" for k in path)[
            :-1
        ]: [
            list(x.shape),
            str(x.dtype),
        ]
        for path, x in flat
    }


def _abstract(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


def _changes(there: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, str]]:
    keys = [k for k in {**there, **here} if there.get(k) != here.get(k)]
    return [(k, f"{there.get(k)} there, {here.get(k)} here") for k in keys]


def _diff(there: dict[str, Any], here: dict[str, Any]) -> str:
    each = [f"{k}: {said}" for k, said in _changes(there, here)]
    more = f" and {len(each) - 3} more" if len(each) > 3 else ""
    return "; ".join(each[:3]) + more
