"""Progress bar and training scalars of a phase."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from recjax.data.batching.types import Batch


class Output(Protocol):
    """Where progress is shown: the reporter of a run."""

    def log(self, text: str) -> None:
        """Prints a line."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends scalars to the records of the run."""

    def bar(self, total: int, done: int, name: str) -> Any:
        """Makes a progress bar."""


@dataclass
class TrainLogger:
    """Shows the progress of a phase and logs its training scalars.

    Attributes:
      output: receives lines, scalars and the progress bar.
      name: name of the phase.
      metric: validation metric whose best value the bar shows.
      total: number of steps of the phase.
      step: completed steps of the phase.
      first_step: global step at the start of the phase.
      log_every: steps between two records.
      learning_rates: maps a step of the phase to learning rates by group.
      user_names: returns the user names of a batch.
      min_spread: threshold of the directional variance of vectors, below which a
        warning is logged; 0 disables it.
      loss: loss of the last step that was read.
      skipped: number of batches that were skipped because of their loss.
      skipped_at: step of the last skipped batch.
      best: best validation metric before this epoch.
    """

    output: Output
    name: str
    metric: str
    total: int
    step: int
    first_step: int
    log_every: int
    learning_rates: Callable[[int], dict[str, float]]
    user_names: Callable[[Batch], list[str]]
    min_spread: float
    loss: float = float("nan")
    skipped: int = 0
    skipped_at: int = 0
    best: float = 0.0

    def __post_init__(self) -> None:
        self._bar = self.output.bar(self.total, self.step, self.name)
        self._warned: set[str] = set()
        # The first step of a process compiles, so it is not timed.
        self._num_read = 0
        self._read_time: float | None = None
        # Metrics are read one step late, so that logging never waits for the device.
        self._pending: tuple[int, Batch, Mapping[str, Any]] | None = None

    def start_epoch(self, best: float) -> None:
        """Restarts the clock, so that no step time includes the validation."""
        self.best = best
        self._read_time = time.perf_counter() if self._num_read else None

    def add(self, values: Mapping[str, Any], batch: Batch) -> None:
        """Takes metrics that are still being computed; logs those of the last step."""
        self.flush()
        self._pending = (self.step, batch, values)
        self.step += 1
        self._bar.update()

    def close(self) -> None:
        """Closes the progress bar."""
        self._bar.close()

    def flush(self) -> None:
        """Waits for the pending metrics and logs them."""
        if self._pending is None:
            return
        phase_step, batch, values = self._pending
        self._pending = None
        self.loss = float(values["loss"])  # blocks until the step is done
        now = time.perf_counter()
        before, self._read_time = self._read_time, now
        self._num_read += 1
        self.skipped = int(values["skipped"])
        step = self.first_step + phase_step + 1
        if not values["accepted"]:
            self._report_skipped(step, batch)
            return
        assert batch.examples_B is not None
        users = int((batch.examples_B >= 0).sum())
        speed = f"{users / (now - before):.0f} users/s, " if before else ""
        self._bar.set_postfix_str(
            f"loss {self.loss:.3f}, {speed}best {self.metric} {self.best:.4f}",
            refresh=False,
        )
        if phase_step % self.log_every == 0:
            # A skipped batch does not advance the schedule of the learning rate.
            rates = self.learning_rates(phase_step - self.skipped)
            scalars = {
                "train/loss": self.loss,
                "train/grad_norm": float(values["grad_norm"]),
                **{f"train/lr/{group}": rate for group, rate in rates.items()},
            }
            # With auxiliary losses, each of their values.
            losses = [name for name in values if name.startswith("loss/")]
            scalars |= {f"train/{name}": float(values[name]) for name in losses}
            for kind in ("users", "items"):
                spread = float(values[f"spread/{kind}"])
                scalars[f"train/spread/{kind}"] = spread
                self._check_spread(kind, spread, step)
            if before:
                scalars["time/step_ms"] = 1000 * (now - before)
            self.output.scalars(step, scalars)

    def _report_skipped(self, step: int, batch: Batch) -> None:
        self.skipped_at = step
        names = self.user_names(batch)
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        self.output.log(
            f"phase {self.name}, step {step}: loss {self.loss:g}: batch skipped, "
            f"{self.skipped} so far; its {len(names)} users: {some}"
        )
        self.output.scalars(step, {"train/skipped": self.skipped})

    def _check_spread(self, kind: str, spread: float, step: int) -> None:
        if spread < self.min_spread and kind not in self._warned:
            self._warned.add(kind)
            # Before the first update, the learning rate cannot be the reason.
            advice = (
                "try a smaller learning rate"
                if step > self.first_step + 1
                else "they were so before this phase: look at the texts and the encoder"
            )
            self.output.log(
                f"warning: phase {self.name}, step {step}: the vectors of {kind} have "
                f"collapsed to nearly one direction (spread {spread:.1e}, below "
                f"train.min_spread); {advice}"
            )
