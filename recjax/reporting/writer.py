"""Where a run is reported: console, TensorBoard, metrics.jsonl, files."""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from recjax.common.files import atomic_files, write_text_atomically
from recjax.reporting.wandb import WandbWriter

# tensorboardX imports torch where there is one, which takes seconds; it needs none.
_hidden = sys.modules.setdefault("torch", None) is None  # type: ignore[arg-type]
from tensorboardX.event_file_writer import EventsWriter  # noqa: E402
from tensorboardX.proto.event_pb2 import Event  # noqa: E402
from tensorboardX.proto.summary_pb2 import Summary  # noqa: E402
from tensorboardX.summary import hparams as make_hparams  # noqa: E402
from tensorboardX.summary import text as make_text  # noqa: E402

if _hidden:
    del sys.modules["torch"]


class Reporter:
    """Writes one run's outputs; silent in every process but the first.

    Args:
      workdir: the run directory.
      active: whether this process writes.
    """

    def __init__(self, workdir: Path, *, active: bool):
        self.workdir, self.active, self.records = workdir, active, 0
        self.mirror: WandbWriter | None = None  # receives the scalars too

    def open(self, resume: Mapping[str, Any] | None) -> None:
        """Opens the files; nothing but `say` works before.

        Args:
          resume: what `marks` said at the save that the run continues from: what was
            written after it is cut off, because it is written again. None starts anew.
        """
        if not self.active:
            return
        self._jsonl = self.workdir / "metrics.jsonl"
        lines = (
            self._jsonl.read_text(encoding="utf-8").splitlines()
            if self._jsonl.exists()
            else []
        )
        kept = lines[: resume["records"]] if resume else []
        self.write(self._jsonl.name, "".join(line + "\n" for line in kept))
        self.records = len(kept)
        sizes = resume["events"] if resume else {}
        for path in self.workdir.glob("events.out.tfevents.*"):
            if path.name in sizes:
                os.truncate(path, sizes[path.name])
            else:
                path.unlink()
        # Each start has a file of its own, written at once: no queue, no thread.
        self._events = EventsWriter(str(self.workdir / "events"), f".{os.getpid()}")

    def resume_state(self) -> dict[str, Any]:
        """What a save has to know: how far the files go now."""
        if not self.active:
            return {"records": 0, "events": {}}
        self._events.flush()
        files = self.workdir.glob("events.out.tfevents.*")
        return {
            "records": self.records,
            "events": {path.name: path.stat().st_size for path in files},
        }

    def log(self, text: str = "") -> None:
        """Prints a line above a running progress bar."""
        if self.active:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends to metrics.jsonl and TensorBoard."""
        if not self.active:
            return
        # `add_scalar` would write ndcg_10 for ndcg@10.
        each = [Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
        self._add(Summary(value=each), step)
        with self._jsonl.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.records += 1
        if self.mirror is not None:
            self.mirror.scalars(step, values)

    def text(self, tag: str, markdown: str) -> None:
        """A page in TensorBoard's text tab."""
        if self.active:
            self._add(make_text(tag, markdown))

    def hparams(self, values: Mapping[str, Any]) -> None:
        """The run's row in TensorBoard's hparams tab: what it was made with.

        The columns are left to TensorBoard, which puts those first in which runs
        differ.

        Args:
          values: by key of the config.
        """
        if self.active:
            simple = {
                k: v if isinstance(v, bool | int | float | str) else json.dumps(v)
                for k, v in values.items()
            }
            _, start, end = make_hparams(simple, {})
            self._add(start)
            self._add(end)

    def bar(self, total: int, done: int, name: str, unit: str = "step") -> Any:
        """A progress bar; every ten seconds where the output is no terminal."""
        return tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=unit,
            file=sys.stdout,
            disable=not self.active,
            mininterval=0.2 if sys.stdout.isatty() else 10,
            ncols=100 if not sys.stdout.isatty() else None,
        )

    def write(self, name: str, text: str) -> None:
        """Writes a file of the run directory, whole or not at all."""
        if self.active:
            write_text_atomically(self.workdir / name, text)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a table of the run directory as Parquet, unless it has no rows."""
        if self.active and len(frame):
            frame.write_parquet(self.workdir / name)

    def ranks(self, system: str, rank_R: np.ndarray) -> None:
        """Keeps the ranks of the test's targets by one system, for `ranks_table`."""
        if self.active:
            path = self.workdir / "ranks" / f"{system}.npy"
            path.parent.mkdir(exist_ok=True)
            with atomic_files(path) as (part,):
                np.save(part, rank_R.astype(np.int32), allow_pickle=False)

    def ranks_table(self, rows: Mapping[str, Any], systems: Iterable[str]) -> None:
        """Writes `ranks.parquet`: a row for each test row, a column for each system.

        Args:
          rows: other columns, which say what row it is.
          systems: whose ranks are kept; without those that cannot be read, as it says.
        """
        if self.active:
            frame = pl.DataFrame(rows).with_row_index("row")
            for system in systems:
                path = self.workdir / "ranks" / f"{system}.npy"
                try:
                    ranks = pl.Series(system, np.load(path, allow_pickle=False))
                    frame = frame.with_columns(ranks)
                except (OSError, EOFError, ValueError, pl.exceptions.PolarsError) as e:
                    # No reason to lose the results of a run that has come so far.
                    self.log(f"warning: ranks.parquet is without {system}: {e}")
            with atomic_files(self.workdir / "ranks.parquet") as (part,):
                frame.write_parquet(part)

    def close(self) -> None:
        """Flushes the event file, and what else receives the scalars."""
        if self.active:
            self._events.close()
        if self.mirror is not None:
            self.mirror.close()

    def _add(self, summary: Any, step: int | None = None) -> None:
        self._events.write_event(
            Event(wall_time=time.time(), step=step, summary=summary)
        )
        self._events.flush()
