"""Progress bar and training scalars of a phase."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from recjax.data.batching.types import Batch
from recjax.reporting.writer import Reporter


class TrainLogger:
    """Progress bar and training scalars of a phase.

    Metrics are read one step late, so that logging never waits for the device.

    Args:
      reporter: receives them.
      name: of the phase.
      metric: whose best value the bar shows.
      total: steps of the phase.
      done: of them, before this process began.
      first_step: global step at the start of the phase.
      log_every: steps between two records.
      learning_rates: step of the phase -> learning rates by tag.
      user_names: batch -> names of its users.
      min_spread: below this spread of vectors a warning is given; 0 = never.

    Attributes:
      loss: of the last step that was shown.
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
        log_every: int,
        learning_rates: Callable[[int], dict[str, float]],
        user_names: Callable[[Batch], list[str]],
        min_spread: float,
    ):
        self.name, self.user_names, self.min_spread = name, user_names, min_spread
        self.skipped, self.skipped_at = 0, 0
        self._warned: set[str] = set()
        self.reporter, self.metric, self.log_every = reporter, metric, log_every
        self.first_step, self.number = first_step, done
        self.learning_rates = learning_rates
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
        self.skipped = int(values["skipped"])
        step = self.first_step + number + 1
        if not values["accepted"]:
            self._report_skipped(step, batch)
            return
        assert batch.examples_B is not None
        users = int((batch.examples_B >= 0).sum())
        speed = f"{users / (now - before):.0f} users/s, " if before else ""
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, {speed}best {self.metric} {self.best:.4f}",
            refresh=False,
        )
        if number % self.log_every == 0:
            scalars = {
                "train/loss": loss,
                "train/grad_norm": float(values["grad_norm"]),
                **self.learning_rates(number - self.skipped),
            }
            for of in ("users", "items"):
                scalars[f"train/spread/{of}"] = float(values[f"spread/{of}"])
                self._check_spread(of, scalars[f"train/spread/{of}"], step)
            if before:
                scalars["time/step_ms"] = 1000 * (now - before)
            self.reporter.scalars(step, scalars)

    def _report_skipped(self, step: int, batch: Batch) -> None:
        self.skipped_at = step
        names = self.user_names(batch)
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        self.reporter.log(
            f"phase {self.name}, step {step}: loss {self.loss:g}: batch skipped, "
            f"{self.skipped} so far; its {len(names)} users: {some}"
        )
        self.reporter.scalars(step, {"train/skipped": self.skipped})

    def _check_spread(self, of: str, spread: float, step: int) -> None:
        if spread < self.min_spread and of not in self._warned:
            self._warned.add(of)
            self.reporter.log(
                f"warning: phase {self.name}, step {step}: the vectors of {of} have "
                f"nearly one direction (spread {spread:.1e}, below train.min_spread): "
                "they have collapsed. Try a smaller learning rate"
            )
