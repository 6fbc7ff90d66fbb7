"""What every part of a run needs; built once, by `train.open_run`."""

import functools
import time
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.sharding import Mesh

from recjax.catalogue.arrays import CatalogueBuilder
from recjax.checkpointing.checkpoints import Checkpoints
from recjax.data.dataset import Data
from recjax.data.text.tokenize import Tokens
from recjax.evaluation.evaluator import Evaluator
from recjax.models.recommender import Recommender
from recjax.reporting.writer import Reporter
from recjax.runtime.compiler import Compiler
from recjax.runtime.host_memory import peak_memory
from recjax.runtime.mesh import batch_sharding, place, replicated
from recjax.runtime.signals import Signals
from recjax.runtime.timer import Moment
from recjax.training.optimizer import PhaseRules


@dataclass
class Run:
    """The parts of a run, and the seconds each part of it has taken.

    Attributes:
      titles: how the items are called, by catalogue row.
      rules: of every phase with epochs, resolved.
      pretrained: digest of the encoder's weights, where they are read from a file.
      began: when this process began, by `time.perf_counter`.
      seconds: by part, those of processes that were interrupted included.
      peak_before: MiB, the most that one of those processes had.
    """

    config: Any
    data: Data
    titles: list[str]
    tokens: Tokens | None
    catalogue: CatalogueBuilder
    model: Recommender
    mesh: Mesh
    compiler: Compiler
    evaluator: Evaluator
    reporter: Reporter
    checkpoints: Checkpoints
    signals: Signals
    rules: list[PhaseRules]
    pretrained: str | None
    began: float
    seconds: dict[str, float] = field(default_factory=dict)
    peak_before: int = 0

    @functools.cached_property
    def dropout_key(self) -> jax.Array:
        """A step folds its number in."""
        return self.replicate(jax.random.key(self.config.seed + 1))

    def shard_batch(self, tree: Any) -> Any:
        """Onto the devices, first dimensions over the data axis."""
        return place(tree, batch_sharding(self.mesh, tree))

    def replicate(self, tree: Any) -> Any:
        """Onto every device."""
        return place(tree, replicated(self.mesh))

    def spend(self, what: str, seconds: float) -> None:
        """Adds to one of the run's accounts."""
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def now(self) -> "Moment":
        """Where an account begins."""
        return Moment(time.perf_counter(), self.compiler.seconds)

    def spend_since(self, what: str, start: "Moment") -> None:
        """Adds what has passed since then; of it, what went to compiling, apart."""
        now = self.now()
        compiled = now.compiled - start.compiled
        self.spend(what, now.clock - start.clock - compiled)
        self.spend("compile", compiled)

    def accounts(self) -> dict[str, float]:
        """Seconds by part, and in all."""
        parts = {**self.seconds}
        before = parts.pop("total", 0.0)
        return {**parts, "total": before + time.perf_counter() - self.began}

    def peak_memory(self) -> int:
        """The most memory, in MiB, of any process that worked on the run so far."""
        return max(self.peak_before, peak_memory())
