"""Where a run is reported: console, TensorBoard, metrics.jsonl, files."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from recjax.data.batches import Batch
from recjax.wandb_sink import WandbSink

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
        self.mirror: WandbSink | None = None  # receives the scalars too

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

    def marks(self) -> dict[str, Any]:
        """What a save has to know: how far the files go now."""
        if not self.active:
            return {"records": 0, "events": {}}
        self._events.flush()
        files = self.workdir.glob("events.out.tfevents.*")
        return {
            "records": self.records,
            "events": {path.name: path.stat().st_size for path in files},
        }

    def say(self, text: str = "") -> None:
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
            part = self.workdir / f".{name}.part"
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.workdir / name)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a table of the run directory as Parquet, unless it has no rows."""
        if self.active and len(frame):
            frame.write_parquet(self.workdir / name)

    def ranks(self, system: str, rank_R: np.ndarray) -> None:
        """Keeps the ranks of the test's targets by one system, for `ranks_table`."""
        if self.active:
            path = self.workdir / "ranks" / f"{system}.npy"
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.save(file, rank_R.astype(np.int32), allow_pickle=False)
            os.replace(part, path)

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
                    self.say(f"warning: ranks.parquet is without {system}: {e}")
            part = self.workdir / ".ranks.parquet.part"
            frame.write_parquet(part)
            os.replace(part, self.workdir / "ranks.parquet")

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


class Meter:
    """Progress bar and training scalars of a phase.

    Metrics are read one step late, so that logging never waits for the device.

    Args:
      reporter: receives them.
      name: of the phase.
      metric: whose best value the bar shows.
      total: steps of the phase.
      done: of them, before this process began.
      first_step: global step at the start of the phase.
      every: steps between two records.
      rates: step of the phase -> learning rates by tag.
      users: names of a batch's users.
      min_spread: below this spread of vectors a warning is given; 0 = never.

    Attributes:
      loss: of the last step that was shown.
      asked: the most that a process has asked for, of `signals`, since it was reset.
      skipped: batches that were not trained on.
      skipped_at: step of the last one.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        name: str,
        metric: str,
        total: int,
        done: int,
        first_step: int,
        every: int,
        rates: Callable[[int], dict[str, float]],
        users: Callable[[Batch], list[str]],
        min_spread: float,
    ):
        self.name, self.users, self.min_spread = name, users, min_spread
        self.asked, self.skipped, self.skipped_at = 0, 0, 0
        self._warned: set[str] = set()
        self.reporter, self.metric, self.every = reporter, metric, every
        self.first_step, self.rates, self.number = first_step, rates, done
        self.loss = float("nan")
        self._bar = reporter.bar(total, done, name)
        self._steps = 0  # of this process; the first one compiles and is not timed
        self._mark: float | None = None
        self._pending: tuple[int, Batch, Mapping[str, Any]] | None = None

    def start_epoch(self, best: float) -> None:
        """Starts the clock."""
        self.best = best
        self._mark = time.perf_counter() if self._steps else None

    def add(self, values: Mapping[str, Any], batch: Batch) -> None:
        """Takes a step's metrics, still being computed, and shows the last one's."""
        self.flush()
        self._pending = (self.number, batch, values)
        self.number += 1
        self._bar.update()

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def flush(self) -> None:
        """Shows what is pending."""
        if self._pending is None:
            return
        number, batch, values = self._pending
        self._pending = None
        loss = float(values["loss"])  # the step is done when this is known
        self.loss = loss
        now, before = time.perf_counter(), self._mark
        self._mark, self._steps = now, self._steps + 1
        self.asked = max(self.asked, int(values["asked"]))
        self.skipped = int(values["skipped"])
        step = self.first_step + number + 1
        if not values["counts"]:
            self._report_skipped(step, batch)
            return
        assert batch.rows_B is not None
        users = int((batch.rows_B >= 0).sum())
        speed = f"{users / (now - before):.0f} users/s, " if before else ""
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, {speed}best {self.metric} {self.best:.4f}",
            refresh=False,
        )
        if number % self.every == 0:
            scalars = {
                "train/loss": loss,
                "train/grad_norm": float(values["grad_norm"]),
                **self.rates(number - self.skipped),
            }
            for of in ("users", "items"):
                scalars[f"train/spread/{of}"] = float(values[f"spread/{of}"])
                self._check_spread(of, scalars[f"train/spread/{of}"], step)
            if before:
                scalars["time/step_ms"] = 1000 * (now - before)
            self.reporter.scalars(step, scalars)

    def _report_skipped(self, step: int, batch: Batch) -> None:
        self.skipped_at = step
        names = self.users(batch)
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        self.reporter.say(
            f"phase {self.name}, step {step}: loss {self.loss:g}: batch skipped, "
            f"{self.skipped} so far; its {len(names)} users: {some}"
        )
        self.reporter.scalars(step, {"train/skipped": self.skipped})

    def _check_spread(self, of: str, spread: float, step: int) -> None:
        if spread < self.min_spread and of not in self._warned:
            self._warned.add(of)
            self.reporter.say(
                f"warning: phase {self.name}, step {step}: the vectors of {of} have "
                f"nearly one direction (spread {spread:.1e}, below train.min_spread): "
                "they have collapsed. Try a smaller learning rate"
            )
