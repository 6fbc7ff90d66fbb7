"""Writes a run's outputs: console, TensorBoard, metrics.jsonl, result files."""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from recjax.common.errors import UserError
from recjax.common.files import atomic_files, write_text_atomically, writes_to
from recjax.common.text import visible_lines
from recjax.reporting.bars import make_bar
from recjax.reporting.log_files import cut_events, cut_jsonl
from recjax.reporting.rank_files import read_ranks, write_ranks
from recjax.reporting.tensorboard import (
    Event,
    EventsWriter,
    Summary,
    make_hparams,
    make_text,
)
from recjax.reporting.wandb import WandbWriter
from recjax.runtime.locks import MARK

LOG = "log.txt"
EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d+\..*\.\d+")  # time, host, process
RANKS = "ranks"  # the directory of the ranks of each system
FILES = (LOG, "metrics.jsonl", "results.md", "results.json", "ranks.parquet")


class Reporter:
    """Writes the outputs of one run; silent in every process but the first.

    Args:
      workdir: the run directory.
      active: whether this process writes.
    """

    def __init__(self, workdir: Path, *, active: bool):
        self.workdir = workdir
        self.active = active
        self.records = 0  # lines of metrics.jsonl
        self.mirror: WandbWriter | None = None  # also receives the scalars
        self._is_open = False
        self._unwritten: list[str] = []  # lines that log.txt does not have yet

    def open(self, resume: Mapping[str, Any] | None) -> None:
        """Opens the files; before this, only `log` works.

        Args:
          resume: `resume_state` at the checkpoint the run continues from. Everything
            written after it is cut off, because the run writes it again. None starts
            with empty files.

        Raises:
          UserError: something else has the name of a file.
        """
        if not self.active:
            return
        self._jsonl = self.workdir / "metrics.jsonl"
        for path in (self.workdir / name for name in FILES):
            if path.exists() and not path.is_file():  # opening a pipe would wait
                raise UserError(f"{path}: is not a regular file; move it away")
        if (self.workdir / RANKS).exists() and not (self.workdir / RANKS).is_dir():
            raise UserError(f"{self.workdir / RANKS}: is no directory; move it away")
        num_records = resume["records"] if resume else 0
        text, self.records, *problems = cut_jsonl(self._jsonl, num_records)
        self.write(self._jsonl.name, text)
        # tensorboardX's `purge_step` is no replacement: it hides all points from a step
        # on, but the test metrics share their step with the last validation, which a
        # checkpoint may already contain.
        sizes = resume["events"] if resume else {}
        for path in self._event_files():
            if path.name not in sizes:
                path.unlink()
        problems += [cut_events(self.workdir / k, size) for k, size in sizes.items()]
        for problem in filter(None, problems):
            self.log(f"warning: {problem}; the run continues without them")
        # A file per start, written synchronously: `resume_state` needs exact sizes,
        # which the queue and thread of tensorboardX's other writers do not give.
        self._events = EventsWriter(str(self.workdir / "events"), f".{os.getpid()}")
        self._is_open = True
        self._write_log()

    def resume_state(self) -> dict[str, Any]:
        """Returns the current lengths of the files, for a checkpoint."""
        if not self.active:
            return {"records": 0, "events": {}}
        self._events.flush()
        sizes = {path.name: path.stat().st_size for path in self._event_files()}
        return {"records": self.records, "events": sizes}

    def _event_files(self) -> list[Path]:
        """Event files of runs; others, such as backups, have other names."""
        files = self.workdir.glob("events.out.tfevents.*")
        return [path for path in files if EVENT_FILE.fullmatch(path.name)]

    def log(self, text: str) -> None:
        """Prints a line above a running progress bar, and appends it to log.txt."""
        if self.active:
            text = visible_lines(text)
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
            self._unwritten.append(text)
            if self._is_open:
                self._write_log()

    def _write_log(self) -> None:
        """Appends the lines that were printed to log.txt."""
        # A full disk must not end the run here: lines are written with the next ones.
        with (
            contextlib.suppress(OSError),
            (self.workdir / LOG).open("a", encoding="utf-8") as file,
        ):
            file.writelines(text + "\n" for text in self._unwritten)
            self._unwritten.clear()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends scalars to metrics.jsonl, TensorBoard and W&B."""
        if not self.active:
            return
        # `SummaryWriter.add_scalar` would rename ndcg@10 to ndcg_10.
        each = [Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
        with self._name_errors():
            self._add(Summary(value=each), step)
            with self._jsonl.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        self.records += 1
        if self.mirror is not None:
            self.mirror.scalars(step, values)

    def text(self, tag: str, markdown: str) -> None:
        """Writes a page of TensorBoard's text tab."""
        if self.active:
            with self._name_errors():
                self._add(make_text(tag, markdown))

    def hparams(self, values: Mapping[str, Any]) -> None:
        """Writes the run's row in TensorBoard's hparams tab.

        TensorBoard orders the columns: those in which runs differ come first.

        Args:
          values: values of the config by key.
        """
        if self.active:
            # In the directory of a sweep, the directory above names the variant.
            parents = self.workdir.absolute().parents
            swept = len(parents) > 1 and (parents[1] / MARK).exists()
            name = Path(parents[0].name if swept else "", self.workdir.absolute().name)
            simple = {key: _describe(key, value) for key, value in values.items()}
            _, start, end = make_hparams({"run": str(name), **simple}, {})
            with self._name_errors():
                self._add(start)
                self._add(end)

    def bar(self, total: int, done: int, name: str, unit: str = "step") -> Any:
        """Makes a progress bar, see `make_bar`."""
        return make_bar(total, done, name, unit, active=self.active)

    def write(self, name: str, text: str) -> None:
        """Writes a file of the run directory, completely or not at all."""
        if self.active:
            write_text_atomically(self.workdir / name, text)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a table to `name`.parquet and `name`.csv.

        Without rows there are no files; those of an earlier start are deleted.

        Raises:
          UserError: a file cannot be written.
        """
        if not self.active:
            return
        for suffix, write in (
            ("parquet", frame.write_parquet),
            ("csv", frame.write_csv),
        ):
            path = self.workdir / f"{name}.{suffix}"
            if not len(frame):
                path.unlink(missing_ok=True)
                continue
            with writes_to(path), atomic_files(path) as (part,), part.open("wb") as out:
                write(out)

    def ranks(self, system: str, rank_R: np.ndarray) -> None:
        """Stores the test ranks of one system, for `ranks_table`."""
        if self.active:
            path = self.workdir / RANKS / system
            path.parent.mkdir(exist_ok=True)
            write_ranks(path, rank_R)

    def ranks_table(self, columns: Mapping[str, Any], systems: Iterable[str]) -> None:
        """Writes `ranks.parquet`: a row per test example, a column per system.

        Args:
          columns: columns that describe the examples.
          systems: systems with stored ranks; one whose file is unreadable is left out
            with a warning.
        """
        if self.active:
            frame = pl.DataFrame(columns).with_row_index("row")
            for system in systems:
                try:
                    rank_R = read_ranks(self.workdir / RANKS / system, len(frame))
                    frame = frame.with_columns(pl.Series(system, rank_R))
                except (OSError, ValueError) as e:
                    # Not worth losing the results of a run that is otherwise finished.
                    self.log(f"warning: ranks.parquet has no column {system}: {e}")
            path = self.workdir / "ranks.parquet"
            with writes_to(path), atomic_files(path) as (part,), part.open("wb") as out:
                frame.write_parquet(out)

    def close(self) -> None:
        """Closes the event file and the W&B run."""
        if self.active:
            self._events.close()
        if self.mirror is not None:
            self.mirror.close()

    @contextlib.contextmanager
    def _name_errors(self) -> Iterator[None]:
        """Names the directory, and what to do, if the logs cannot be written."""
        try:
            yield
        except OSError as e:
            raise UserError(
                f"{self.workdir}: the metrics cannot be written ({e.strerror}); fix "
                "this, and the same command resumes from the newest checkpoint"
            ) from None

    def _add(self, summary: Any, step: int | None = None) -> None:
        self._events.write_event(
            Event(wall_time=time.time(), step=step, summary=summary)
        )
        self._events.flush()


def _describe(key: str, value: Any) -> bool | int | float | str:
    """Writes out learning-rate rules, as in ".*/kernel: frozen", and others as JSON."""
    if isinstance(value, bool | int | float | str):
        return value
    if key.endswith(".lr_mults"):
        return "; ".join(f"{path}: {'frozen' if x is None else x}" for path, x in value)
    return json.dumps(value)
