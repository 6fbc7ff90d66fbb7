"""Where a run is reported: console, TensorBoard, metrics.jsonl, files."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

# tensorboardX imports torch where there is one, which takes seconds; it needs none.
_hidden = sys.modules.setdefault("torch", None) is None  # type: ignore[arg-type]
import tensorboardX  # noqa: E402
from tensorboardX.proto.summary_pb2 import Summary  # noqa: E402
from tensorboardX.summary import hparams as make_hparams  # noqa: E402

if _hidden:
    del sys.modules["torch"]


class Reporter:
    """Writes one run's outputs; silent in every process but the first.

    Args:
      workdir: the run directory.
      active: whether this process writes.
      resume: `{"records", "step"}` of the save that the run continues from: later
        records are dropped, because they are written again; None starts anew.
    """

    def __init__(
        self, workdir: Path, *, active: bool, resume: Mapping[str, int] | None
    ):
        self.workdir, self.active, self.records = workdir, active, 0
        if not active:
            return
        self._jsonl = workdir / "metrics.jsonl"
        lines = self._jsonl.read_text().splitlines() if self._jsonl.exists() else []
        kept = lines[: resume["records"]] if resume else []
        self._jsonl.write_text("".join(line + "\n" for line in kept))
        self.records = len(kept)
        purge = resume["step"] + 1 if resume else None
        self._writer = tensorboardX.SummaryWriter(str(workdir), purge_step=purge)

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
        self._writer.file_writer.add_summary(Summary(value=each), step)
        with self._jsonl.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.records += 1

    def text(self, tag: str, markdown: str) -> None:
        """A page in TensorBoard's text tab."""
        if self.active:
            self._writer.add_text(tag, markdown)

    def hparams(self, values: Mapping[str, Any], tags: Iterable[str]) -> None:
        """The run's row in TensorBoard's hparams tab: what it was made with.

        Args:
          values: by key of the config.
          tags: of the scalars whose newest values stand beside them.
        """
        if self.active:
            simple = {
                k: v if isinstance(v, bool | int | float | str) else json.dumps(v)
                for k, v in values.items()
            }
            for summary in make_hparams(simple, dict.fromkeys(tags)):
                self._writer.file_writer.add_summary(summary)

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
            part.write_text(text)
            os.replace(part, self.workdir / name)

    def close(self) -> None:
        """Flushes the event file."""
        if self.active:
            self._writer.close()


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
    ):
        self.reporter, self.metric, self.every = reporter, metric, every
        self.first_step, self.rates, self.number = first_step, rates, done
        self.loss = float("nan")  # of the last step that was shown
        self._bar = reporter.bar(total, done, name)
        self._steps = 0  # of this process; the first one compiles and is not timed
        self._mark: float | None = None
        self._pending: tuple[int, int, Mapping[str, Any]] | None = None

    def start_epoch(self, best: float) -> None:
        """Starts the clock."""
        self.best = best
        self._mark = time.perf_counter() if self._steps else None

    def add(self, values: Mapping[str, Any], users: int) -> None:
        """Takes a step's metrics, still being computed, and shows the last one's."""
        self._show()
        self._pending = (self.number, users, values)
        self.number += 1
        self._bar.update()

    def end_epoch(self) -> None:
        """Shows what is pending."""
        self._show()

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def _show(self) -> None:
        if self._pending is None:
            return
        number, users, values = self._pending
        self._pending = None
        loss = float(values["loss"])  # the step is done when this is known
        self.loss = loss
        now, before = time.perf_counter(), self._mark
        self._mark, self._steps = now, self._steps + 1
        speed = f"{users / (now - before):.0f} users/s, " if before else ""
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, {speed}best {self.metric} {self.best:.4f}",
            refresh=False,
        )
        if number % self.every == 0:
            scalars = {
                "train/loss": loss,
                "train/grad_norm": float(values["grad_norm"]),
                **self.rates(number),
            }
            if before:
                scalars["time/step_ms"] = 1000 * (now - before)
            self.reporter.scalars(self.first_step + number + 1, scalars)
