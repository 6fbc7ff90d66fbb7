"""The run directory: its config, its lock, and the free space on its disk."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from recjax.checkpointing.store import DESCRIPTORS, PATTERNS
from recjax.common.config import describe_changes, flatten, without_places
from recjax.common.errors import UserError
from recjax.common.files import read_json, user_path, write_text_atomically
from recjax.common.param_paths import FlatParams, tree_bytes
from recjax.inference.files import MODEL
from recjax.inference.versions import restore_link
from recjax.reporting.results_file import check_results_version
from recjax.reporting.results_page import results_page, summary_text
from recjax.run.sources import check_sources
from recjax.runtime.locks import DirectoryLock, check_directory, directory_lock
from recjax.training.optimizer import PhaseRules, make_optimizer

RECREATE = "delete it to create it again"  # a damaged file of the run directory
RUN = "run"  # the kind of a run directory, see `check_directory`


def run_directory(name: str) -> Path:
    """Returns the path of the run directory that `--workdir` names.

    Raises:
      UserError: Orbax cannot save in a directory of this name.
    """
    folder = user_path(name, "--workdir")
    found = PATTERNS & set(str(folder.resolve()))
    if found and not DESCRIPTORS.is_dir():
        raise UserError(
            f"--workdir {folder}: has a {min(found)!r} in its path; checkpoints cannot "
            "be saved there on this system"
        )
    return folder


def check_same_config(
    config: Any, folder: Path, instead: str = "choose another --workdir"
) -> str:
    """Checks that a run directory is free or has the same config; returns it as text.

    Args:
      config: the resolved config.
      folder: the run directory, which may not exist yet.
      instead: the remedy to name if the directory has another config.

    Raises:
      UserError: the directory belongs to another config or to something else, or holds
        a damaged file.
    """
    check_directory(folder, RUN, "--workdir")
    key = config.data.user_key
    if key and user_path(key, "data.user_key").resolve().is_relative_to(
        folder.resolve()
    ):
        raise UserError(f"data.user_key: {key} lies in the run directory; move it out")
    text = config.to_json(indent=2) + "\n"
    path, params = folder / "config.json", folder / "checkpoints" / "params"
    results = folder / "results.json"
    saved = params.is_dir() and any(p.name.isdigit() for p in params.iterdir())
    if results.exists() and not path.exists():
        raise UserError(
            f"{folder}: has results but no config.json; delete them, or {instead}"
        )
    if (saved or results.exists()) and path.exists():
        before, now = (
            without_places(flatten(content))
            for content in (read_json(path, RECREATE), json.loads(text))
        )
        changes = describe_changes(before, now)
    else:
        changes = ""
    if changes:
        raise UserError(
            f"{folder}: holds a run of another config ({changes}); {instead}"
        )
    return text


def open_workdir(config: Any, folder: Path) -> dict[str, Any] | None:
    """Writes the config into a locked run directory; returns results if it is finished.

    A directory in which nothing was trained yet accepts another config.

    Raises:
      UserError: the directory cannot be written, belongs to another config, or holds
        a damaged file.
    """
    text = check_same_config(config, folder)
    path, results = folder / "config.json", folder / "results.json"
    first = jax.process_index() == 0
    if results.exists() and (done := _finished(config, folder, results, first)):
        return done
    try:
        if first:
            write_text_atomically(path, text)
    except OSError as e:
        raise UserError(f"--workdir {folder}: {e.strerror}") from None
    return None


def _finished(
    config: Any, folder: Path, path: Path, first: bool
) -> dict[str, Any] | None:
    """Shows a finished run and returns its results; None if its model is missing."""
    done = read_json(path, RECREATE)
    check_results_version(path, done)
    try:
        summary = summary_text(done, config.report.metrics)
        page = results_page(done, config.report.metrics)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UserError(
            f"{path}: damaged; delete it and run the same command again"
        ) from None
    changed = check_sources(config, folder, done)
    saved = (folder / "checkpoints" / "params").is_dir()
    restore_link(folder / MODEL)  # of a promotion that was killed
    if config.report.save_model and saved and not (folder / MODEL).is_dir():
        if first:
            print(f"{folder} holds a finished run; its {MODEL}/ is written now")
        return None
    if first:
        print(f"{folder} holds a finished run:\n\n{summary}")
        if changed:
            print(
                f"\nnote: {', '.join(changed)} changed after this run. To train on "
                "them, use another --workdir, or delete this one"
            )
        if not (folder / "results.md").exists():
            write_text_atomically(folder / "results.md", page + "\n")
    return done


def check_disk(
    config: Any,
    phases: Sequence[Any],
    rules: Sequence[PhaseRules],
    shapes: FlatParams,
    folder: Path,
    log: Callable[[str], None],
) -> None:
    """Checks that the disk has room for the checkpoints of a run.

    Args:
      config: the config of the run.
      phases: the phases with epochs.
      rules: the resolved rules of these phases.
      shapes: shapes of all parameters.
      folder: the run directory, which may not exist yet.
      log: prints a line with the sizes.

    Raises:
      UserError: too little room, or a directory that cannot be written.
    """
    # The initial parameters are saved once, the trained ones after each phase.
    needs, state, trained = tree_bytes(shapes), 0, set[str]()
    for phase, phase_rules in zip(phases, rules, strict=True):
        opt = make_optimizer(config.optim, phase, phase_rules, steps=1)
        trainable, _ = phase_rules.split(shapes)
        moments = tree_bytes(jax.eval_shape(opt.tx.init, trainable))
        copies = 3 if phase.ema else 2  # current, best and averaged parameters
        state = max(state, moments + copies * tree_bytes(trainable))
        trained |= set(trainable)
        needs += tree_bytes({path: shapes[path] for path in trained})
    # One more than `keep`: the oldest is deleted only when the newest is complete.
    needs += (config.train.keep + 1) * state
    written = (folder / "checkpoints").rglob("*")
    needs -= sum(p.stat().st_size for p in written if p.is_file())
    while not folder.exists():
        folder = folder.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--workdir {folder}: is not writable; choose another one")
    free = shutil.disk_usage(folder).free
    log(f"checkpoints: at most {needs / 2**20:,.0f} MiB, {free / 2**20:,.0f} are free")
    if needs > free:
        raise UserError(
            f"--workdir {folder}: the checkpoints need {needs / 2**20:,.0f} "
            f"MiB, {free / 2**20:,.0f} MiB are free; free some, or lower train.keep"
        )


@contextlib.contextmanager
def lock_workdir(folder: Path) -> Iterator[DirectoryLock | None]:
    """Creates the run directory and locks it against other runs.

    The first of several processes holds the lock for all; the others yield None.

    Raises:
      UserError: another run has the lock, the directory belongs to something else, or
        it cannot be created.
    """
    if jax.process_index():
        yield None
        return
    with directory_lock(folder, RUN, "--workdir") as lock:
        yield lock
