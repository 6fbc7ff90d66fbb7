"""The checkpoints of a run: what it saves, and what it resumes from.

`checkpoints/last/<step>` holds the newest training states of the current phase.
`checkpoints/params/0` holds all parameters before training, `checkpoints/params/<i>`
those that the first i phases have trained. Together they are the start of phase i.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from recjax.checkpointing.store import Checkpoint, CheckpointDirectory, Identity
from recjax.common.config import describe_changes, without_places
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams
from recjax.runtime.locks import DirectoryLock
from recjax.runtime.processes import all_processes


class Checkpoints:
    """The checkpoints of a run directory, with the `keep` newest training states.

    `log` receives a line about each checkpoint that could not be read or saved.

    Attributes:
      run_identity: saved with every checkpoint; see `check_identity`.
      phase_checkpoint: the newest verified parameters that a phase starts from.
      step_checkpoint: the newest verified training state of that phase.
    """

    def __init__(
        self,
        workdir: Path,
        log: Callable[[str], None],
        keep: int = 2,
        lock: DirectoryLock | None = None,
    ):
        self._lock = lock
        folder = (workdir / "checkpoints").resolve()
        self._last = CheckpointDirectory(folder / "last", keep, log)
        self._params = CheckpointDirectory(folder / "params", 0, log)
        if not jax.process_index():
            self._last.delete_unfinished()
            self._params.delete_unfinished()
        self.run_identity: Identity = {}
        self.phase_checkpoint, self.step_checkpoint = self._find()
        # The arguments of the newest `save_params`, until they are saved.
        self._pending: tuple[int, FlatParams, dict[str, Any]] | None = None
        self._initial_checkpoint = self.phase_checkpoint
        if self.phase_checkpoint is not None and self.phase_checkpoint.number:
            self._initial_checkpoint = self._params.verify(0)
            if self._initial_checkpoint is None:
                raise self._damaged_error()

    def _find(self) -> tuple[Checkpoint | None, Checkpoint | None]:
        """Finds the newest verified parameters and the newest state of their phase."""
        phase = step = None
        damaged = 0
        if not jax.process_index():
            phase = _newest_valid(self._params)
            if phase is not None:
                step = _newest_valid(self._last, phase.number)
            damaged = int(phase is None and bool(self._params.steps()))
        # Every process takes what the first one finds: a checkpoint that is damaged for
        # some processes only must not make them resume from two places.
        if jax.process_count() > 1:
            numbers = [-1 if x is None else x.number for x in (phase, step)]
            found = multihost_utils.broadcast_one_to_all(np.array([*numbers, damaged]))
            index, number, damaged = map(int, found)
            if jax.process_index():
                phase = self._params.verify(index) if index >= 0 else None
                step = self._last.verify(number) if number >= 0 else None
        if damaged:
            raise self._damaged_error()
        return phase, step

    def _damaged_error(self) -> UserError:
        return UserError(
            f"{self._params.folder}: every checkpoint that the run could resume from "
            f"is damaged; delete {self._params.folder.parent} to start again, or "
            "choose another --workdir"
        )

    @property
    def newest(self) -> Checkpoint | None:
        """The checkpoint that the run resumes from; None if there is none."""
        return self.step_checkpoint or self.phase_checkpoint

    def check_identity(self, identity: Identity) -> str:
        """Sets the identity of the run and compares it with the checkpoint's.

        Its `required` part (config, data, catalogue) has to equal the saved one, or a
        UserError is raised. The `informational` part (versions, devices) may differ,
        but then the results are not bit-identical.

        Returns:
          The changes of the informational part; empty if nothing changed.
        """
        self.run_identity = identity
        newest = self.newest
        if newest is None:
            return ""
        # A resumed run reads all three, and each of them could be of another run.
        for checkpoint in (self._initial_checkpoint, self.phase_checkpoint, newest):
            if checkpoint is not None:
                self._check_required(checkpoint, identity["required"])
        return describe_changes(
            newest.manifest["identity"]["informational"],
            identity["informational"],
            limit=None,
        )

    def _check_required(self, checkpoint: Checkpoint, required: dict[str, Any]) -> None:
        """Checks that a checkpoint belongs to this run."""
        saved = checkpoint.manifest.get("identity")
        if saved is None:
            raise UserError(
                f"{checkpoint.path}: was saved by an older version of recjax, which "
                "this version cannot resume; finish the run with that version, or "
                "choose another --workdir"
            )
        before = without_places(saved["required"])
        if changes := describe_changes(before, required):
            raise UserError(
                f"{checkpoint.path}: belongs to another run ({changes}); choose "
                "another --workdir"
            )

    def check_lock(self) -> None:
        """Checks that the run directory still belongs to this run.

        Raises:
          UserError: it was deleted or replaced, see `DirectoryLock.check`.
        """
        if self._lock is not None:
            self._lock.check()

    def save_last(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves in the background the state that a resumed run continues from.

        `meta` holds JSON values, among them the index of the `phase`.
        """
        self.check_lock()
        # A state without the parameters that its phase started from is useless.
        if self.flush_phase_checkpoint():
            self._last.save(step, tree, meta, self.run_identity)

    def restore_last(self, like: Any) -> Any:
        """Restores the pytree of `save_last`, with arrays placed like those given."""
        assert self.step_checkpoint is not None
        return self._last.restore(self.step_checkpoint, like)

    def save_params(
        self, index: int, trained: FlatParams, meta: dict[str, Any]
    ) -> None:
        """Saves in the background the parameters that phase `index` starts from.

        `trained` are the parameters that the phases before it trained; for phase 0 all.
        """
        self.check_lock()
        # Until they are saved, a resumed run continues from the newest state of the
        # phase before, which therefore has to be complete.
        self._last.wait()
        self._pending = index, trained, meta
        self._params.save(*self._pending, self.run_identity)

    def flush_phase_checkpoint(self) -> bool:
        """Awaits `save_params`, retries once; returns whether all processes saved."""
        saved = all_processes(self._params.wait())
        if not saved and self._pending is not None:
            self._params.save(*self._pending, self.run_identity)
            saved = all_processes(self._params.wait())
        if saved:
            self._pending = None
        return saved

    def restore_params(self, like: FlatParams) -> tuple[FlatParams, list[str]]:
        """Restores all parameters that the phase starts from, placed like those given.

        Returns them, and the paths of those that were trained.
        """
        assert self.phase_checkpoint is not None
        assert self._initial_checkpoint is not None
        params = self._params.restore(self._initial_checkpoint, like)
        if not self.phase_checkpoint.number:
            return params, []
        # Parameters that stay frozen are only in the initial checkpoint.
        trained = list(self.phase_checkpoint.manifest["arrays"])
        like = {path: like[path] for path in trained}
        return params | self._params.restore(self.phase_checkpoint, like), trained

    def wait(self) -> bool:
        """Waits for all saves; returns False if one of any process failed."""
        return all_processes(self._params.wait() and self._last.wait())

    def close(self) -> None:
        """Waits for background saves."""
        self._last.close()
        self._params.close()


def read_params(workdir: Path, index: int | None = None) -> FlatParams:
    """Reads all parameters of a run after `index` phases, by default after all of them.

    They are on the first device. Raises UserError if they are missing or damaged.
    """
    folder = (workdir / "checkpoints" / "params").resolve()
    problems: list[str] = []
    directory = CheckpointDirectory(folder, 0, problems.append)
    with contextlib.closing(directory):
        newest = max(directory.steps(), default=0) if index is None else index
        params: FlatParams = {}
        for number in sorted({0, newest}):
            checkpoint = directory.verify(number)
            if checkpoint is None:
                raise UserError(problems[0])
            params |= directory.restore_plain(checkpoint)
    return params


def _newest_valid(
    directory: CheckpointDirectory, phase: int | None = None
) -> Checkpoint | None:
    """Returns the newest checkpoint that verifies, of a phase if one is given."""

    def fits(meta: dict[str, Any]) -> bool:
        return phase is None or meta.get("phase") == phase

    for number in directory.steps():
        # Hashing takes seconds, so checkpoints of another phase are skipped by their
        # unverified metadata. The verified metadata is checked again.
        meta = directory.read_meta(number)
        if meta is not None and not fits(meta):
            continue
        checkpoint = directory.verify(number)
        if checkpoint is not None and fits(checkpoint.meta):
            return checkpoint
    return None
