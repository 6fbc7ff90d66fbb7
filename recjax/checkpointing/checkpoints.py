"""What a run saves, and what it goes on from.

`checkpoints/last/<step>` holds the newest states, each with the best parameters of its
phase and where the run stood; `checkpoints/params/0` all parameters before training,
`checkpoints/params/<i>` those that the first i phases have trained, and how they enter
the next one: frozen weights are written once.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from recjax.checkpointing.store import Checkpoint, CheckpointDirectory
from recjax.common.config import changed_values, describe_changes
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams
from recjax.runtime.processes import all_processes
from recjax.training.train_step import TrainState


class Checkpoints:
    """The checkpoints of a run directory.

    Args:
      workdir: the run directory.
      say: receives a line about what could not be read or saved.
      keep: of the newest states, how many stay.
    """

    def __init__(self, workdir: Path, say: Callable[[str], None], keep: int = 2):
        folder = (workdir / "checkpoints").resolve()
        self._last = CheckpointDirectory(folder / "last", keep, say)
        self._params = CheckpointDirectory(folder / "params", 0, say)
        if not jax.process_index():
            self._last.clear_parts()
            self._params.clear_parts()
        self.run_identity: dict[str, Any] = {}
        self.phase_checkpoint, self.step_checkpoint = self._find()
        self._pending: tuple[int, FlatParams, Any] | None = None  # until it is saved
        self._initial_checkpoint = self.phase_checkpoint
        if self.phase_checkpoint is not None and self.phase_checkpoint.number:
            self._initial_checkpoint = self._params.verify(0)
            if self._initial_checkpoint is None:
                raise self._none_whole()

    def _find(self) -> tuple[Checkpoint | None, Checkpoint | None]:
        """The newest verified parameters, and the newest verified state that goes on
        from them. Every process takes what the first one finds."""
        entered = inside = None
        damaged = 0
        if not jax.process_index():
            entered = _newest_valid(self._params, lambda meta: True)
            if entered is not None:
                index = entered.number
                inside = _newest_valid(
                    self._last, lambda meta: meta.get("phase") == index
                )
            damaged = int(entered is None and bool(self._params.steps()))
        if jax.process_count() > 1:
            found = [-1 if s is None else s.number for s in (entered, inside)]
            found = multihost_utils.broadcast_one_to_all(np.array([*found, damaged]))
            index, step, damaged = map(int, found)
            if jax.process_index():
                entered = self._params.verify(index) if index >= 0 else None
                inside = self._last.verify(step) if step >= 0 else None
        if damaged:
            raise self._none_whole()
        return entered, inside

    def _none_whole(self) -> UserError:
        return UserError(
            f"{self._params.folder}: no save is whole; choose another "
            f"--workdir, or delete {self._params.folder.parent} to start anew"
        )

    @property
    def resume_metadata(self) -> dict[str, Any] | None:
        """`meta` of the save that a resumed run continues from; None before any."""
        saved = self.step_checkpoint or self.phase_checkpoint
        return saved.meta if saved else None

    def check_identity(self, about: dict[str, dict[str, Any]]) -> list[str]:
        """Says what run this is; returns what is declared to differ from the saved.

        Args:
          about: `must` (config, data, catalogue) has to be what it was; `may`
            (versions, devices) may differ, but results are then not the same bits.

        Raises:
          UserError: a save of another run; says what differs.
        """
        self.run_identity = about
        saved = self.step_checkpoint or self.phase_checkpoint
        if saved is None:
            return []
        there = saved.manifest["about"]
        if there["required"] != about["required"]:
            differ = describe_changes(there["required"], about["required"])
            raise UserError(
                f"{saved.path}: is of another run: {differ}; choose another --workdir"
            )
        if there["informational"] != about["informational"]:
            return [
                f"{k}: {v}"
                for k, v in changed_values(
                    there["informational"], about["informational"]
                )
            ]
        return []

    def save_last(
        self, step: int, state: TrainState, best: FlatParams, more: Any, meta: Any
    ) -> None:
        """Saves in the background what a resumed run needs.

        Args:
          step: global step.
          state: of the phase.
          best: the trainable parameters with the best validation metric.
          more: other arrays that the next steps depend on.
          meta: JSON values.
        """
        if not self._flush_phase_checkpoint():
            return  # without what enters the phase its states are of no use
        tree = {"state": state, "best": best, "more": more}
        self._last.save(step, tree, meta, self.run_identity)

    def restore_last(
        self, state: TrainState, more: Any
    ) -> tuple[TrainState, FlatParams, Any]:
        """State, best parameters and other arrays, placed like the ones given."""
        assert self.step_checkpoint is not None
        like = {"state": state, "best": state.trainable, "more": more}
        tree = self._last.restore(self.step_checkpoint, like)
        return tree["state"], tree["best"], tree["more"]

    def save_params(self, index: int, trained: FlatParams, meta: Any) -> None:
        """Saves in the background the parameters as they enter phase `index`.

        Until they are saved the newest state of the phase before is what a resumed run
        goes on from.

        Args:
          index: of the phase; 0 before any.
          trained: by the phases before; all parameters before any.
          meta: JSON values.
        """
        self._last.wait()
        self._pending = index, trained, meta
        self._params.save(*self._pending, self.run_identity)

    def _flush_phase_checkpoint(self) -> bool:
        """Whether what enters the phase is saved; where it failed it is tried again."""
        saved = all_processes(self._params.wait())
        if not saved and self._pending is not None:
            self._params.save(*self._pending, self.run_identity)
            saved = all_processes(self._params.wait())
        if saved:
            self._pending = None
        return saved

    def restore_params(self, like: FlatParams) -> tuple[FlatParams, list[str]]:
        """All parameters as they enter the phase, and the paths that were trained.

        Args:
          like: all parameters; the restored ones are placed like them.
        """
        assert self.phase_checkpoint is not None
        assert self._initial_checkpoint is not None
        params: FlatParams = self._params.restore(self._initial_checkpoint, like)
        if not self.phase_checkpoint.number:
            return params, []
        trained = list(self.phase_checkpoint.manifest["arrays"])
        there = {path: like[path] for path in trained}
        return params | self._params.restore(self.phase_checkpoint, there), trained

    def wait(self) -> bool:
        """Waits for what is being saved; False if a process did not save something."""
        return all_processes(self._params.wait() and self._last.wait())

    def wait_for_result(self) -> bool:
        """Waits for the parameters, and tries again; False if they are not saved."""
        return self._flush_phase_checkpoint()

    def close(self) -> None:
        """Waits for background saves."""
        self._last.close()
        self._params.close()


def read_params(workdir: Path, index: int | None = None) -> FlatParams:
    """All parameters of a run, on the first device.

    Args:
      workdir: the run directory.
      index: after so many phases; the newest if None.

    Raises:
      UserError: they are not there, or damaged.
    """
    folder, said = (workdir / "checkpoints" / "params").resolve(), list[str]()
    with contextlib.closing(CheckpointDirectory(folder, 0, said.append)) as steps:
        newest = max(steps.steps(), default=0) if index is None else index
        saves = [steps.verify(number) for number in sorted({0, newest})]
        params: FlatParams = {}
        for saved in saves:
            if saved is None:
                raise UserError(said[0])
            params |= steps.restore_plain(saved)
    return params


def _newest_valid(
    steps: CheckpointDirectory, fits: Callable[[dict[str, Any]], bool]
) -> Checkpoint | None:
    """The newest save that verifies, of those whose `meta` fits."""
    for number in steps.steps():
        meta = steps.read_meta(number)  # not verified; decides only what to look at
        if meta is not None and not fits(meta):
            continue
        if (saved := steps.verify(number)) and fits(saved.meta):
            return saved
    return None
